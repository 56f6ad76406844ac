"""What becomes of torch's threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

TRIED = """
import logging, os, torch
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pgkd_agent.student.threads import limit_threads
if %r: torch.set_num_threads(%r)
logging.basicConfig(format="%%(message)s")
print(limit_threads(), "|", limit_threads() and "again", "|", torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.parametrize(("own", "threads", "expected"), [(None, 3, 1), ("1", 0, 1), ("16", 16, 16)])
def test_threads_are_no_more_than_cpus_unless_a_person_says_so(own: str | None, threads: int, expected: int) -> None:
    given = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    if own:
        given["OMP_NUM_THREADS"] = own
    command = [sys.executable, "-c", TRIED % (threads, threads)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    note, again, left = done.stdout.split("|")
    assert int(left) == expected
    is_told = expected > 1
    assert (note.strip() != "", again.strip() == "again", done.stderr.count("\n")) == (is_told, is_told, int(is_told))
    assert not is_told or "OMP_NUM_THREADS=16 makes 16 threads, and this process may use 1 CPU: " in done.stderr
