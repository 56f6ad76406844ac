"""What this process may use of the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def allowed_cpus(groups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """CPUs that this process may use: those of its affinity, and no more than its control groups have time for.

    Args:
        groups: Where control groups are mounted, of either version.
        own: The file that names those of this process.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([cpus, *_quotas(groups, own)])))


def wanted_threads() -> int:
    """As many as a person said with `OMP_NUM_THREADS`, else a thread for each CPU that may be used."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else allowed_cpus()


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """In CPUs, of the group of this process and of each above it; a container sees its own group as the topmost."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for _, kinds, name in (line.split(":", 2) for line in lines):
        if kinds and "cpu" not in kinds.split(","):
            continue
        top, path = groups / ("cpu" if kinds else ""), Path(name.strip("/"))
        yield from (_quota(top / folder) for folder in {path, *path.parents, Path()})


def _quota(group: Path) -> float:
    one_file, two_files = group / "cpu.max", (group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")
    try:
        found = one_file.read_text().split() if one_file.is_file() else [file.read_text() for file in two_files]
        quota, period = map(float, found)
    except (OSError, ValueError):  # no group of that name, or "max"
        return math.inf
    return quota / period if quota > 0 else math.inf
