"""A disk that loses its power: what was never synced is gone, and the folder is put together again from the rest."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Told of the writes below a folder, it knows what would still be there.

    A file's content is safe by its fsync, its name by that of its folder (POSIX promises no more). SQLite syncs by
    itself, so what it has committed is safe.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {self._root.stat().st_ino: {}}
        self._folders = {self._root.stat().st_ino}
        self._held: dict[int, int] = {}

    def __call__(self, what: str, path: Path) -> None:
        if what == "committed" and path.exists():
            self._keep(path)
            parent = path.parent.stat().st_ino
            self._names.setdefault(parent, {})[path.name] = path.stat().st_ino
        if what == "fsynced" and path.exists():
            self._keep(path)

    def _keep(self, path: Path) -> None:
        number = path.stat().st_ino
        if number not in self._held:  # no other file gets its number
            self._held[number] = os.open(path, os.O_RDONLY)
        if path.is_dir():
            self._names[number] = {each.name: each.stat().st_ino for each in path.iterdir()}
            self._folders |= {each.stat().st_ino for each in path.iterdir() if each.is_dir()}
        else:
            self._contents[number] = path.read_bytes()

    def without_names(self, target: Path) -> None:
        """Names that were not synced are lost, and replaced ones are as before."""
        self._build(self._root.stat().st_ino, target)

    def _build(self, number: int, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name, child in self._names.get(number, {}).items():
            if child in self._folders:
                self._build(child, target / name)
            else:
                (target / name).write_bytes(self._contents.get(child, b""))

    def without_contents(self, target: Path) -> None:
        """All names are there; what was not synced of their contents is not."""
        for path in sorted(self._root.rglob("*")):
            new = target / path.relative_to(self._root)
            if path.is_dir():
                new.mkdir(parents=True, exist_ok=True)
            elif path.exists():  # a journal of SQLite comes and goes
                new.parent.mkdir(parents=True, exist_ok=True)
                safe = self._contents.get(path.stat().st_ino, b"")
                new.write_bytes(safe if path.suffix != ".lock" else b"")
