"""Load on `pgkd serve`: requests of one text, as many under way as there are clients, with and without micro-batching.

python -m evals.bench.serve_load runs/demo/models/best texts.jsonl --seconds 15 --rounds 3

The load comes from this machine and takes part of it, so a server by itself does more. Settings take turns over the
rounds; printed are medians over rounds as a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import httpx

from pgkd_agent.data import stream_texts

WARM_UP = 20
"""Requests before the clock starts."""


@dataclass(frozen=True)
class Load:
    """Of one round; latencies in seconds."""

    texts_per_second: float
    p50: float
    p99: float
    statuses: Counter[int]


@contextmanager
def server(model: Path, options: Sequence[str]) -> Iterator[str]:
    command = [sys.executable, "-m", "pgkd_agent", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        yield process.stderr.readline().split(" at ")[1].split(";")[0]
    finally:
        process.terminate()
        process.wait(60)


async def load(address: str, texts: Sequence[str], clients: int, seconds: float) -> Load:
    source = cycle(texts)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:

        async def ask() -> None:
            started = time.perf_counter()
            answer = await client.post("/classify", json={"text": next(source)})
            latencies.append(time.perf_counter() - started)
            statuses[answer.status_code] += 1

        for _ in range(WARM_UP):
            await ask()
        latencies.clear()
        statuses.clear()
        started = time.perf_counter()

        async def keep_asking() -> None:
            while time.perf_counter() - started < seconds:
                await ask()

        await asyncio.gather(*(keep_asking() for _ in range(clients)))
        elapsed = time.perf_counter() - started
    percentiles = statistics.quantiles(latencies, n=100)
    return Load(len(latencies) / elapsed, percentiles[49], percentiles[98], statuses)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--option", action="append", default=[], help="Of pgkd serve, e.g. --option=--precision=auto.")
    given = parser.parse_args()
    texts = list(stream_texts(given.texts, None))
    found: dict[tuple[int, int], list[Load]] = {}
    for _ in range(given.rounds):
        for max_batch in (1, 64):
            with server(given.model, ["--max-batch", str(max_batch), *given.option]) as address:
                for clients in given.clients:
                    one = asyncio.run(load(address, texts, clients, given.seconds))
                    found.setdefault((clients, max_batch), []).append(one)
    lines = [
        "| clients | --max-batch | texts/s | p50, ms | p99, ms | answers by status |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (clients, max_batch), rounds in sorted(found.items()):
        speed, p50, p99 = (
            statistics.median(getattr(one, name) for one in rounds) for name in ("texts_per_second", "p50", "p99")
        )
        statuses = dict(sum((one.statuses for one in rounds), Counter[int]()))
        lines.append(f"| {clients} | {max_batch} | {speed:.0f} | {1000 * p50:.0f} | {1000 * p99:.0f} | {statuses} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
