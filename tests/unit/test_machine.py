"""How many CPUs and threads a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgkd_agent.machine import allowed_cpus, wanted_threads

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


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("0", 8), ("4,2", 8), ("", 8)])
def test_a_person_who_names_a_number_of_threads_gets_it(
    said: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgkd_agent.machine.allowed_cpus", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert wanted_threads() == expected
