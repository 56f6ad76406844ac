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


def dumped(page: Path, profile: Path) -> str:
    """The page as it is once its scripts have run."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"none of {', '.join(NAMES)} is installed")
        pytest.skip("needs Chromium")
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [found, "--headless", "--no-sandbox", *quiet, "--disable-sync", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [*command, "--dump-dom", page.resolve().as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout
