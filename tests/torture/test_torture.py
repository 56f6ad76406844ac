"""A part of the torture that takes seconds: a sample of every fault. `make torture` tries all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc which file is synced")


PART = (
    "--commands", "distill", "--faults", "kill at,power,full,damaged", "--every", "400", "--places", "2",
)  # fmt: skip


@pytest.mark.parametrize("seed", ["1"])
def test_nothing_is_lost(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *PART, "--seed", seed],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| damaged weights and tokenizer | distill | 2 |" in done.stdout, "all faults were tried"
