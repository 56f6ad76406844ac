"""Guardrails: screening 32 samples against a long history, at the first step and at later ones.

The history is real texts and, where these are too few, the same with their words shuffled; the samples are further
shuffles, so that the near-duplicate rule has work to do.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from statistics import median

from evals.bench.common import Row, emit, peak_gib, read_rows
from pgkd_agent.config import GuardrailSettings
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.types import GeneratedSample, Label


def shuffled(row: Row, drawn: random.Random) -> Row:
    words = row[0].split()
    drawn.shuffle(words)
    return " ".join(words), row[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="folders of datasets")
    parser.add_argument("--history", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    drawn = random.Random(0)
    real = [row for folder in options.data for row in read_rows(folder / "train.jsonl")]
    drawn.shuffle(real)
    rows = real[: options.history]
    while len(rows) < options.history:
        rows.append(shuffled(drawn.choice(real), drawn))
    history = History(tuple(HistoryRow(*row) for row in rows))
    guardrails = Guardrails(GuardrailSettings(), [Label(name) for name in sorted({label for _text, label in rows})])
    before = peak_gib()
    milliseconds: list[float] = []
    for kd_step in range(1, options.steps + 1):
        samples = [GeneratedSample(*shuffled(drawn.choice(real), drawn)) for _ in range(options.samples)]
        started = time.perf_counter()
        screened = guardrails.screen(samples, history, frozenset(), kd_step)
        milliseconds.append((time.perf_counter() - started) * 1000)
        history = history.extended(screened.accepted)
    emit(
        {
            "first_step_ms": milliseconds[0],
            "later_steps_ms": median(milliseconds[1:] or milliseconds),
            "history_rows": float(options.history),
            "added_mib": (peak_gib() - before) * 1024,
        }
    )


if __name__ == "__main__":
    main()
