"""As many threads as this process has CPUs: more of them wait for each other, in containers above all."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch

from pgkd_agent.text import counted

logger = logging.getLogger(__name__)

OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables with which a person says how many threads there are."""
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


def limit_threads(warns: bool = True) -> str:
    """Let torch take no more threads than there are CPUs, unless a person said how many.

    Args:
        warns: Whether a log says what is returned, once.
    Returns:
        What is to be said where a person said more than that; else empty.
    """
    cpus, threads = allowed_cpus(), torch.get_num_threads()
    if threads <= cpus:
        return ""
    said = next((f"{name}={os.environ[name]}" for name in OWN if os.environ.get(name)), None)
    if said is None:
        torch.set_num_threads(cpus)
        return ""
    allowed = counted(cpus, "CPU")
    note = f"{said} makes {threads} threads, and this process may use {allowed}: leave it out, or set it to {cpus}"
    if warns:
        _warn(note)
    return note


@cache
def _warn(note: str) -> None:
    logger.warning(note)
