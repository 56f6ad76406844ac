"""How many CPUs a process may use, and what becomes of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgkd_agent.student.threads import allowed_cpus

# (what /proc/self/cgroup says, files of the groups, CPUs of an affinity of 8)
GROUPS: list[tuple[str | None, dict[str, str], int]] = [
    (None, {}, 8),
    ("0::/", {}, 8),
    ("0::/", {"cpu.max": "max 100000"}, 8),
    ("0::/", {"cpu.max": "200000 100000"}, 2),
    ("0::/", {"cpu.max": "250000 100000"}, 2),
    ("0::/", {"cpu.max": "50000 100000"}, 1),
    ("0::/", {"cpu.max": "9900000 100000"}, 8),
    ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
    ("0::/a/b", {"cpu.max": "100000 100000"}, 1),
    ("4:memory:/x\n1:cpu,cpuset:/x", {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000"}, 4),
    ("1:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ("0::/", {"cpu.max": "damaged"}, 8),
]  # fmt: skip


@pytest.mark.parametrize(("own", "files", "expected"), GROUPS)
def test_affinity_and_quota(
    own: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    if own is not None:
        (tmp_path / "own").write_text(own, encoding="utf-8")
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text, encoding="utf-8")
    assert allowed_cpus(tmp_path / "groups", tmp_path / "own") == expected


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
