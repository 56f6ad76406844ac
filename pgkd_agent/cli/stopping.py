"""What Ctrl-C and SIGTERM do: the first one ends a command in order, the second one at once."""

from __future__ import annotations

import _thread
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pgkd_agent.cli import terminal
from pgkd_agent.errors import PGKDError, StorageError, TeacherError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SOON = 0.01
"""Seconds."""
SHOW_CURSOR = b"\x1b[?25h"
SAME_COMMAND = "the same command goes on where it was, without paying a call twice"


class Stopped(SystemExit):
    """A person, or the system, ended the command; no frame takes it for a failure. `code` is 128 and the signal."""


def answer_signals() -> None:
    """From now on, in this process."""
    stopped: list[int] = []
    others = sys.unraisablehook

    def raise_again(lost: sys.UnraisableHookArgs) -> None:
        """Where Python drops what is raised, as in the end of an object, the command would go on."""
        if not isinstance(lost.exc_value, Stopped):
            others(lost)
        else:
            threading.Timer(SOON, _send, [signal.Signals(stopped.pop())]).start()

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped:
            if sys.stderr.isatty():  # past its buffer, which the first signal's answer may be writing
                os.write(sys.stderr.fileno(), SHOW_CURSOR)  # progress hides it
            os._exit(128 + number)
        console = terminal.errors()
        stopped.append(number)
        after_echo = "\n" if console.is_terminal else ""  # of ^C
        terminal.say(console, f"{after_echo}stopping: calls under way are awaited; Ctrl-C again ends at once")
        raise Stopped(128 + number)

    sys.unraisablehook = raise_again
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and a script's & leave them
            signal.signal(number, stop)


def _send(number: signal.Signals) -> None:
    """To this process; where signals are no more than a word, to its main thread."""
    if os.name == "nt":
        _thread.interrupt_main(number)
    else:
        os.kill(os.getpid(), number)


def ignore_signals() -> None:
    """For what has its own way to end by them, and tells its caller of them once more."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def going_on_with(answers: Path | None) -> str:
    """
    Args:
        answers: File of a teacher's answers; None where none is asked.
    """
    return f"{SAME_COMMAND}, with --out {shlex.quote(str(answers))}" if answers else "nothing was kept"


@contextmanager
def going_on(how: Callable[[], str], but_for: type[PGKDError] | None = None) -> Iterator[None]:
    """What ends the block before its time, and need not, says how to go on: `main` prints the note that is added.

    Args:
        how: Called in the end.
        but_for: What would only come again.
    """
    try:
        yield
    except (Stopped, TeacherError, StorageError) as error:
        if but_for is None or not isinstance(error, but_for):
            error.add_note(how())
        raise
