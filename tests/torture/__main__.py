"""`python -m tests.torture`: disturb commands in every way that is here, and print what became of them."""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
import typer

from tests.torture import damage, writes
from tests.torture.faults import LOST, NAMED, WHOLE, Line, Torture, Trial

Trials = Iterator[tuple[str, Trial]]
EMBEDDED = "embedded"
"""The command with a real teacher."""
FEW = 6
"""Kills of it: it takes its time."""


def parts(torture: Torture, kills: int, places: int) -> dict[str, tuple[tuple[str, ...], Callable[..., Trials]]]:
    """By name: the commands that a fault is for, and the fault."""
    commands = tuple(name for name in torture.jobs if name != EMBEDDED)
    stopped = tuple(name for name in commands if name != "import")
    return {
        "kill at each write": (commands, lambda job: torture.write_boundaries(job, twice=False)),
        "kill again while it goes on": (stopped, lambda job: torture.write_boundaries(job, twice=True)),
        "signals at random": (stopped, lambda job: torture.random_signals(job, kills)),
        "signals at random, embedded teacher": ((EMBEDDED,), lambda job: torture.random_signals(job, FEW)),
        "power loss, names lost": (commands, lambda job: torture.power_loss(job, keeps_names=False)),
        "power loss, contents lost": (commands, lambda job: torture.power_loss(job, keeps_names=True)),
        "disk full": (commands, lambda job: torture.refusing_disk(job, writes.no_space)),
        "may not write": (commands, lambda job: torture.refusing_disk(job, writes.denied)),
        "folder vanishes": (commands, torture.vanishing_folder),
        "clock jumps": (("distill", "compare"), torture.jumping_clock),
        "two at once": (stopped, lambda job: torture.two_at_once(job, 3)),
        **{
            f"damaged {group}": (("distill",), lambda _job, group=group: damage.damaged(torture, group, places))
            for group in damage.FILES
        },
    }


def table(lines: list[Line]) -> str:
    rows = ["| fault | command | tried | as if nothing had been | refused with a reason | lost | seconds | seen |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        counts = [len(line.trials), *map(line.count, (WHOLE, NAMED, LOST)), round(line.seconds)]
        rows.append(f"| {line.fault} | {line.job} | {' | '.join(map(str, counts))} | {line.seen.replace('|', ' ')} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=40, help="signals at random moments, for each command")
    parser.add_argument("--places", type=int, default=50, help="damaged bytes, for each group of files")
    parser.add_argument("--every", type=int, default=1, help="try each n-th write only")
    parser.add_argument("--faults", default="", help="only those with one of these in their name, commas between")
    parser.add_argument("--commands", default="", help="only these, commas between")
    parser.add_argument("--embedded", action="store_true", help="also with the embedded teacher, a few")
    given = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a script's & leaves ignored, for commands too
    typer.echo(f"seed {given.seed}")
    lines: list[Line] = []
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="pgkd-torture-") as work:
        torture = Torture(Path(work) / "work", given.seed, given.every, typer.echo)
        for fault, (commands, trials) in parts(torture, given.kills, given.places).items():
            if not any(part in fault for part in given.faults.split(",")):
                continue
            for name in commands:
                if (given.embedded or name != EMBEDDED) and name in (given.commands or name).split(","):
                    lines.append(Line(fault, name))
                    torture.tried(lines[-1], trials(torture.jobs[name]))
    typer.echo(table(lines))
    return int(any(line.count(LOST) for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
