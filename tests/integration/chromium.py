"""A real browser for pages of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "PGKD_NEEDS_CHROMIUM"
"""In CI it is set: there a missing browser is a failure."""


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def executable() -> str:
    """Where it is; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"none of {', '.join(NAMES)} is installed")
        pytest.skip("needs Chromium")
    return found


def dumped(page: Path | str, profile: Path) -> str:
    """The page, a file or an address, as it is once its scripts have run and what they fetch has come."""
    command = [executable(), *FLAGS, f"--user-data-dir={profile}"]
    address = page if isinstance(page, str) else page.resolve().as_uri()
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
