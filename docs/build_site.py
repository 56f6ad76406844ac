"""Build the documentation site: python docs/build_site.py [FOLDER], `build` unless another is named.

Its pages are those of the repository where they lie there, so that a link between them leads to the same page on
GitHub, in a checkout and on the site. What they link to besides pages, a program or a picture, is copied with them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "docs" / "zensical.toml"
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def pages(nav: list[Any]) -> Iterator[str]:
    """Paths of all pages of a navigation, whose entries are `{title: path}` or `{title: [entries]}`."""
    for entry in nav:
        for target in entry.values():
            yield from pages(target) if isinstance(target, list) else [target]


def copy_pages(folder: Path) -> None:
    """Copy the pages and what they link to, each to where it lies in the repository."""
    for page in pages(tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]):
        source = ROOT / page
        linked = [(source.parent / target).resolve() for target in LINK.findall(source.read_text(encoding="utf-8"))]
        for file in [source, *(file for file in linked if file.suffix != ".md")]:
            copy = folder / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def build(folder: Path) -> Path:
    """Write the site anew and return its folder; a link that leads nowhere is a CalledProcessError."""
    for old in ("pages", "site"):
        shutil.rmtree(folder / old, ignore_errors=True)
    copy_pages(folder / "pages")
    shutil.copyfile(CONFIG, folder / CONFIG.name)
    found = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # the API's page reads docstrings
    zensical = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    subprocess.run(zensical, cwd=folder, env={**os.environ, "PYTHONPATH": found}, check=True)
    return folder / "site"


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build")
