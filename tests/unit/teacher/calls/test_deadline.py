"""A call ends in time, whatever it does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from pgkd_agent.teacher.calls.deadline import within


def test_what_comes_in_time_is_returned_or_raised() -> None:
    assert within(5, lambda: 3) == within(float("inf"), lambda: 3) == 3
    with pytest.raises(TimeoutError, match="its own"):
        within(5, lambda: (_ for _ in ()).throw(TimeoutError("its own")).__next__())


def test_what_is_late_is_dropped() -> None:
    release = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        within(0.1, lambda: release.wait(30))
    assert time.monotonic() - started < 10
    release.set()


def test_a_call_that_never_ends_does_not_hold_the_process() -> None:
    code = (
        "import threading, contextlib\nfrom pgkd_agent.teacher.calls.deadline import within\n"
        "with contextlib.suppress(TimeoutError): within(0.1, threading.Event().wait)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
