"""The command line as a person uses it."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from pgkd_agent.cli import main, stopping, terminal

TERMINAL = {"COLUMNS": "160", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


@contextmanager
def restored() -> Iterator[None]:
    """What commands change for the process they run in: logging, how much they say, and what ends them."""
    root = logging.getLogger()
    loggers = [root, *(logging.getLogger(name) for name in ("pgkd_agent", *terminal.WITHOUT_TABLE))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    answers = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    unraisable = sys.unraisablehook
    try:
        yield
    finally:
        terminal.set_verbosity(quiet=False, verbose=False)
        root.handlers[:] = handlers
        sys.unraisablehook = unraisable
        for number, answer in answers.items():
            signal.signal(number, answer)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def pgkd(*arguments: object, stdin: str = "") -> Ended:
    """Within this process, since one of its own takes seconds to start."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        restored(),
        mock.patch.dict(os.environ, TERMINAL),
        mock.patch.object(sys, "argv", ["pgkd", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin.encode())))),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return Ended(int(str(code or 0)), out.getvalue(), err.getvalue())


def pgkd_process(*arguments: object, stdin: str = "") -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "pgkd_agent", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **TERMINAL},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def pgkd_server(*arguments: object) -> subprocess.Popen[str]:
    """`pgkd serve ...` on a free port, without a key; the first line of stderr names its address."""
    environment = {name: value for name, value in os.environ.items() if name != "PGKD_API_KEY"}
    command = [sys.executable, "-m", "pgkd_agent", *map(str, arguments), "--port", "0"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**environment, **TERMINAL})
