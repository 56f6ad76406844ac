"""Ctrl-C and SIGTERM: an answer at once, an end in order, and how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.integration.command_line import TERMINAL, pgkd
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, failure, serve
from tests.integration.test_cli import REPLY, files, quick

__all__ = ["files"]


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pgkd_agent", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **TERMINAL}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def distilling(files: Path, student: Path, server: OpenAIServer, out: str) -> tuple[object, ...]:
    rows = ("--train", files / "train.jsonl", "--val", files / "val.jsonl")
    teacher = ("--teacher", "openai:m", "--base-url", server.base_url, "--set", "teacher.structured=text")
    return ("distill", *rows, *teacher, "--steps", "2", "--out", out, *quick(student))


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr
    assert any(text in line for line in process.stderr), f"it never said {text!r}"


def test_a_run_that_is_stopped_says_so_at_once_and_how_to_go_on(files: Path, tiny_student: Path) -> None:
    may_answer, asked = threading.Event(), threading.Event()

    def answer(call: int, _body: dict[str, Any]) -> Answer:
        if call == 0:
            asked.set()
            may_answer.wait(60)
        return completion(REPLY)

    with serve(answer) as server:
        with started(*distilling(files, tiny_student, server, "a run")) as process:
            assert asked.wait(100)
            process.send_signal(signal.SIGINT)
            wait_for(process, "stopping")
            assert process.poll() is None  # the call is paid for: its answer is kept
            may_answer.set()
            _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "pgkd distill --resume 'a run'" in said and "Traceback" not in said
        resumed = pgkd("distill", "--resume", "a run")
        assert resumed.returncode == 0, resumed.stderr
        assert len(server.requests) == 2  # of two steps: the one under way was not sent again


def test_a_second_time_ends_at_once_and_what_had_not_begun_keeps_nothing(files: Path, tiny_student: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def answer(_call: int, _body: dict[str, Any]) -> Answer:
        asked.set()
        over.wait(60)
        return completion(REPLY)

    with serve(answer) as server:
        with started(*distilling(files, tiny_student, server, "run")) as process:
            assert asked.wait(100)
            process.send_signal(signal.SIGTERM)
            wait_for(process, "stopping")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
        over.set()
    with started(*distilling(files, tiny_student, replace(server), "none")) as process:
        wait_for(process, "reading rows")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopp" in said and "Traceback" not in said
    assert not Path("none").exists()


def test_a_run_that_fails_or_reaches_a_cap_says_how_to_go_on(files: Path, tiny_student: Path) -> None:
    def answer(call: int, _body: dict[str, Any]) -> Answer:
        return failure(401, "no such key") if call == 1 else completion(REPLY)

    with serve(answer) as server:
        failed = pgkd(*distilling(files, tiny_student, server, "run"))
        assert failed.returncode == 3 and "pgkd distill --resume run" in failed.stderr
        capped = pgkd(*distilling(files, tiny_student, server, "capped"), "--max-calls", "1")
        assert capped.returncode == 0 and "pgkd distill --resume capped --max-calls N" in capped.stdout
    refused = pgkd(*distilling(files, tiny_student, server, "run"))
    assert refused.returncode == 2 and "--resume" not in refused.stderr  # nothing to go on with: it is another run


LOST = """
import os, signal, time
from pgkd_agent.cli import stopping

class Ending:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # what the signal raises here is dropped by Python

stopping.answer_signals()
Ending()
time.sleep(20)
print("went on")
"""


def test_a_signal_that_python_would_drop_ends_the_command_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143 and "went on" not in done.stdout and "Traceback" not in done.stderr
