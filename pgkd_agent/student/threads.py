"""As many threads as this process has CPUs: more of them wait for each other, in containers above all."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from pgkd_agent.machine import allowed_cpus
from pgkd_agent.text import counted

logger = logging.getLogger(__name__)

OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables with which a person says how many threads there are."""


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
