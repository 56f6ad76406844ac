"""Commands of `pgkd` in forked processes: torch is imported once, so that each takes a second or less."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch

import pgkd_agent.answering.annotating
import pgkd_agent.answering.output
import pgkd_agent.experiments.compare
import pgkd_agent.runs.report.page
import pgkd_agent.runs.samples
import pgkd_agent.student.student
import pgkd_agent.teacher.standalone
from pgkd_agent.cli import main
from pgkd_agent.runs import evaluation

IMPORTED = (datasets, torch, pgkd_agent)
"""Once, for all that are forked."""
evaluation.RESAMPLES = evaluation.FEWEST_RESAMPLES = (
    20  # of a bootstrap, which takes most of the time of so small a run
)
for template in ("run.html.j2", "card.md.j2", "page.js"):
    pgkd_agent.runs.report.page.page_environment().get_template(template)
CRASHED = 99
"""Exit code of what a person should never see: a traceback."""
LINES_OF_TRACEBACK = 12
LONGEST = 60.0
"""Seconds that a command may take; a hanging one is a fault too."""


@dataclass(frozen=True)
class Ended:
    """`code` is the exit code, or minus the number of the signal that ended it."""

    code: int
    said: str

    @property
    def last_line(self) -> str:
        """The error, or where a traceback came from."""
        if self.code == CRASHED and "Traceback" in self.said:
            return " | ".join(line.strip() for line in self.said.splitlines()[-LINES_OF_TRACEBACK:])
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        return next((line for line in reversed(lines) if line.startswith("error")), lines[-1] if lines else "")


def start(command: Sequence[str], folder: Path, output: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin a command in a folder; returns the process.

    Args:
        prepare: Called in the new process first.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = CRASHED
    try:
        os.setsid()  # what it starts is of its group
        os.chdir(folder)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        streams = [os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2)]
        sys.stdout, sys.stderr = streams
        os.environ |= {"COLUMNS": "200", "NO_COLOR": "1"}
        sys.argv = ["pgkd", *command]
        prepare()
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # not back into what the parent does


def wait(process: int, output: Path, seconds: float = LONGEST) -> Ended:
    """Until it has ended; one that hangs is killed, and so is told."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return Ended(CRASHED, f"{output.read_text(errors='replace')}\nerror: hangs after {seconds:.0f} s")
        time.sleep(0.005)
    said = output.read_text(encoding="utf-8", errors="replace")
    code = os.waitstatus_to_exitcode(status)
    if left := _left_of(process):
        return Ended(CRASHED, f"{said}\nerror: it left processes behind: {left}")
    return Ended(CRASHED if "Traceback (most recent call last)" in said else code, said)


def _left_of(group: int) -> str:
    """The commands of processes that a process started and that still run after a second."""
    for _ in range(100):
        running = [stat.parent for stat in Path("/proc").glob("[0-9]*/stat") if _runs_in(group, stat)]
        if not running:
            return ""
        time.sleep(0.01)
    return "; ".join((folder / "cmdline").read_text().replace("\0", " ") for folder in running if folder.exists())


def _runs_in(group: int, stat: Path) -> bool:
    """Of a group, and no zombie: that has ended, and only waits for the init process to notice."""
    with suppress(OSError):
        state, _parent, its_group, *_ = stat.read_text().rpartition(")")[2].split()
        return int(its_group) == group and state != "Z"
    return False


def run(command: Sequence[str], folder: Path, output: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
    return wait(start(command, folder, output, prepare), output)
