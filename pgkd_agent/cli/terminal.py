"""Where commands write: results to stdout, all else to stderr, and how much of it."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from typing import NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler

from pgkd_agent.errors import StorageError
from pgkd_agent.text import without_controls

WITHOUT_TABLE = ("pgkd_agent.loop.algorithm", "pgkd_agent.student")
"""What these say at level INFO, a run's table of steps says too."""

EVERY = 30.0
"""Seconds between lines about what goes on, where nobody sees a bar."""

_is_quiet = _is_verbose = False
_started = time.monotonic()


CLOSED_PIPE = 141
"""Exit code where nobody reads any more: what a shell says of a program that the signal SIGPIPE ended."""


class _Output(io.TextIOWrapper):
    """UTF-8, whatever the console says; ends the command quietly where the other end of a pipe has gone.

    Raises:
        StorageError: The disk is full.
    """

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._end(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # what is left to be written has a place to go
        if isinstance(error, BrokenPipeError):
            raise SystemExit(CLOSED_PIPE)
        raise StorageError(f"the output cannot be written: {error.strerror or error}") from error


def open_output() -> None:
    """For all that follows in this process; a stream that is no file, as in tests, stays."""
    if sys.stdout is None:  # closed by who started this
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output(sys.stdout.buffer, "utf-8", "backslashreplace", line_buffering=sys.stdout.line_buffering)


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """For all that follows in this process."""
    global _is_quiet, _is_verbose
    _is_quiet, _is_verbose = quiet, verbose
    handler = RichHandler(console=errors(), show_time=verbose, show_path=verbose, show_level=verbose)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pgkd_agent").setLevel(logging.WARNING if quiet else logging.INFO)
    for name in WITHOUT_TABLE:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)


def results() -> Console:
    return Console(emoji=False)


def errors() -> Console:
    """For warnings and errors, whatever --quiet says."""
    return Console(stderr=True, emoji=False)


def notes() -> Console:
    """For progress and what is said on the way; silent with --quiet."""
    return Console(stderr=True, emoji=False, quiet=_is_quiet)


def details() -> Console:
    """For what few need to know; silent without --verbose."""
    return Console(stderr=True, emoji=False, quiet=not _is_verbose)


def warn(text: str) -> None:
    """Of what a person has to know, where there is something: whatever --quiet says."""
    if text:
        say(errors(), text)


def say(console: Console, text: str) -> None:
    """As it is: on lines as long as they are, without colours and markup; what would steer the terminal is left out."""
    console.print(without_controls(text), markup=False, highlight=False, soft_wrap=True)


def echo(text: str) -> None:
    """`say` to stdout, as wide as it is."""
    typer.echo(without_controls(text))


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_controls(super().format(record))


def money(cost: float | None, currency: str) -> str:
    return "price not known" if cost is None else f"{cost:.4f} {currency}"


class Log:
    """Progress where stderr is no terminal: a line with the time since the start, and none where a bar shows it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def begins(self, what: str) -> None:
        """At once."""
        now = time.monotonic()
        self._next = now + EVERY
        if not self._console.is_terminal:
            minutes, seconds = divmod(round(now - _started), 60)
            say(self._console, f"{minutes:>3}:{seconds:02}  {what}")

    def goes_on(self, what: str) -> None:
        """Where the last line is some time ago."""
        if time.monotonic() >= self._next:
            self.begins(what)
