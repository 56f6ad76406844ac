"""Randomness from (seed, KD step, purpose), never from a running generator.

A step that is repeated or resumed therefore draws exactly what it drew before.
"""

from __future__ import annotations

import hashlib
import random


def derive_seed(seed: int, kd_step: int, purpose: str) -> int:
    """Return a seed in [0, 2**31), the range that every provider and generator accepts."""
    digest = hashlib.sha256(f"{seed}/{kd_step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def rng(seed: int, kd_step: int, purpose: str) -> random.Random:
    return random.Random(derive_seed(seed, kd_step, purpose))
