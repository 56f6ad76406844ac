"""Every write of this process below a folder, told before it happens, so that it can be made to fail there.

Told are: opening a file to write, fsync, rename, removal, folders, what SQLite commits, and weights. It is for a forked
process, which ends soon: nothing here can be undone.
"""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

Told = Callable[[str, Path], None]
"""What is done, and to which file."""

REMOVING = ("os.remove", "os.rmdir", "shutil.rmtree")
_CREATES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(folder: Path, tell: Told) -> None:
    """From now on, in this process: call `tell` before each write below the folder; what it raises is the write's."""
    root = folder.resolve()
    here, one_at_a_time = threading.local(), threading.Lock()

    def told(what: str, name: Any, dir_fd: int = -1) -> None:
        if getattr(here, "is_told", False) or isinstance(name, int):
            return
        path = Path(os.fsdecode(name))
        if dir_fd >= 0:
            path = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) / path
        path = Path(os.path.abspath(path))
        if path.is_relative_to(root) and path.suffix != ".lock":
            here.is_told = True
            try:
                with one_at_a_time:
                    tell(what, path)
            finally:
                here.is_told = False

    def audit(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(values[2], int) and values[2] & _CREATES:
            told("open", values[0])
        elif event == "os.rename":
            told(event, values[1], values[3])
        elif event in ("os.remove", "os.rmdir"):
            told(event, *values)
        elif event in ("os.mkdir", "os.truncate"):
            told(event, values[0])

    sys.addaudithook(audit)
    _watch_fsync(told)
    _watch_sqlite(told)
    _watch_weights(told)


def _watch_fsync(told: Callable[..., None]) -> None:
    fsync = os.fsync

    @wraps(fsync)
    def synced(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        told("fsync", os.readlink(f"/proc/self/fd/{number}"))
        fsync(file)
        told("fsynced", os.readlink(f"/proc/self/fd/{number}"))

    os.fsync = synced


def _watch_sqlite(told: Callable[..., None]) -> None:
    """Before and after each transaction; what SQLite does within one is its own business, and tested by its makers."""
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        path = ""

        def __exit__(self, *error: Any) -> Any:
            has_changed = self.in_transaction
            if has_changed:
                told("commit", self.path)
            ended = super().__exit__(*error)
            if has_changed:
                told("committed", self.path)
            return ended

        def commit(self) -> None:
            told("commit", self.path)
            super().commit()
            told("committed", self.path)

    def watched(path: Any, **options: Any) -> Watched:
        connection = connect(path, factory=Watched, **options)
        connection.path = str(path)
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]


def _watch_weights(told: Callable[..., None]) -> None:
    import safetensors.torch
    import transformers.modeling_utils as modeling

    save = safetensors.torch.save_file

    @wraps(save)
    def saved(tensors: Any, filename: Any, **options: Any) -> None:
        told("weights", filename)
        save(tensors, filename, **options)
        told("weights written", filename)

    safetensors.torch.save_file = saved
    modeling.safe_save_file = saved


class Counter:
    """Counts the writes and does something at the one with a number, or from it on."""

    def __init__(self, number: int | None, act: Told, goes_on: bool = False) -> None:
        self._number, self._act, self._goes_on = number, act, goes_on
        self.seen: list[str] = []

    def __call__(self, what: str, path: Path) -> None:
        self.seen.append(f"{what} {path.name}")
        count = len(self.seen) - 1
        if self._number is not None and (count >= self._number if self._goes_on else count == self._number):
            self._act(what, path)


def kill(what: str, path: Path) -> None:
    """Die as by `kill -9`; of weights half a file is there."""
    if what == "weights written":
        os.truncate(path, path.stat().st_size // 2)
    os.write(2, f"killed at {what} {path}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def no_space(what: str, path: Path) -> None:
    """As a full disk, where space would be taken."""
    if what in REMOVING or what in ("fsynced", "committed", "weights written", "os.rename"):
        return
    if what == "commit":
        raise sqlite3.OperationalError("database or disk is full")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def denied(what: str, path: Path) -> None:
    """As a folder that this user may only read."""
    if what not in ("fsynced", "committed", "weights written"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
