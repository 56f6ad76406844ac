"""Files that others read while they grow: written whole or a line at a time, held by one process; package folders."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pgkd_agent.errors import ConfigError, PGKDError, StorageError

RUN, MODEL = "meta.json", "models/best/config.json"
"""What makes a folder a run directory, and what it has once there is a model."""

_FRESH = re.compile(r"(.+)\.[0-9a-f]{8}\.new")
_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file of a run; none where the file is not there yet, and no half line of a stopped run.

    Raises:
        StorageError: A line is not JSON, or the file cannot be read.
    """
    if not path.is_file():
        return []
    try:
        content = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in content[: content.rfind("\n") + 1].split("\n") if line]
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error


def lock(file: Path, what: str) -> FileLock:
    """Hold a file until it is released, or this process ends.

    Raises:
        StorageError: Another process holds it, or it cannot be made.
    """
    held = FileLock(file, timeout=0)
    try:
        make_folder(file.parent)
        held.acquire()
    except Timeout as error:
        raise StorageError(f"another process works on {what}; wait until it has ended") from error
    except OSError as error:
        raise StorageError(f"{what} cannot be written: {error.strerror or error}") from error
    return held


def lock_beside(file: Path) -> FileLock:
    """`lock` a file by a hidden one beside it, `.NAME.lock`: what is locked itself could not be replaced."""
    return lock(file.with_name(f".{file.name}.lock"), str(file))


def append_lines(target: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append to a JSON lines file, made with its folder where it is not there; on disk when this returns.

    Raises:
        StorageError: The disk is full or refuses.
    """
    with storing(target):
        make_folder(target.parent)
        is_new = not target.exists()
        with target.open("ab") as file:
            file.write(encoded("".join(map(as_line, rows))))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync(target.parent)


def write_whole(target: Path, content: str) -> None:
    """Write a file, and the folder that it lies in, as `replacing` does.

    Raises:
        StorageError: The disk is full or refuses.
    """
    with replacing(target) as fresh:
        fresh.write_bytes(encoded(content))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside the target for a new file, or folder, that takes its place when the block has ended.

    The target is there whole or as it was before; on disk afterwards. Several processes may write the same one. Where
    the process is killed, what it wrote is left for `remove_leftovers`.

    Raises:
        StorageError: The disk is full or refuses.
    """
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}.new")
    with storing(target):
        make_folder(target.parent)
        try:
            yield fresh
            sync_all(fresh)
            os.replace(fresh, target)
            sync(target.parent)
        except BaseException:
            with suppress(OSError):
                _remove(fresh)
            raise


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put a new folder, which is on disk, in the place of another, which is kept as `NAME.old` until it is there."""
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)
    sync(folder.parent)  # else it is there again after a power cut


def settle_folder(folder: Path) -> None:
    """After a process was stopped within `replace_folder`, or before: one folder is left, the old or the new one."""
    fresh, old = folder.with_name(f"{folder.name}.new"), folder.with_name(f"{folder.name}.old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of `replacing`, for the one that holds the lock.

    Args:
        name: Of the target; empty for all.
    """
    for fresh in folder.glob("*.new"):
        if (meant := target_name(fresh.name)) != fresh.name and meant == (name or meant):
            _remove(fresh)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def target_name(name: str) -> str:
    """What a file of `replacing` was to become; of another file its own name."""
    named = _FRESH.fullmatch(name)
    return named[1] if named else name


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in; on disk when this returns."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync(each.parent)


def sync_all(path: Path) -> None:
    """Have a file on disk, or a folder with all that is in it."""
    if path.is_dir():
        for each in path.iterdir():
            sync_all(each)
    sync(path)


def sync(path: Path) -> None:
    """Have a file's content on disk, or the names in a folder: a new file without its name is lost with the power."""
    if path.is_dir() and (os.name == "nt" or not os.access(path, os.R_OK)):  # which cannot be opened
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise
    finally:
        os.close(number)


def encoded(content: str) -> bytes:
    """As files are written here: half a surrogate pair as its escape, which in JSON means the same."""
    return content.encode("utf-8", "backslashreplace")


def as_line(row: dict[str, Any], default: Callable[[Any], Any] | None = None) -> str:
    """One line for everyone: what some programs take for the end of one is escaped.

    Args:
        default: What stands for a value that JSON does not have; None refuses it.
    """
    return json.dumps(row, ensure_ascii=False, default=default).translate(_LINE_ENDS) + "\n"


@contextmanager
def storing(target: Path) -> Iterator[None]:
    """
    Raises:
        StorageError: What is done within fails for the disk.
    """
    try:
        yield
    except OSError as error:
        raise not_written(target, error, "; what was stored before is kept") from error


def not_written(target: Path, error: OSError, then: str = "") -> PGKDError:
    """What to raise: where a file stands in the place of a folder, or the reverse, another path is to be named."""
    if isinstance(error, (NotADirectoryError, FileExistsError, IsADirectoryError)):
        file = next((folder for folder in target.parents if folder.is_file()), target)
        what = "a file, not a folder" if file.is_file() else "a folder, not a file"
        return ConfigError(f"{target} cannot be written: {file} is {what}; name another path")
    return StorageError(f"{target} cannot be written: {error.strerror or error}{then}")


def nearest(path: Path, marker: str) -> str:
    """Where a folder with this file in it is meant and `path` is none, those that may be: for the end of a message.

    They are the folder that `path` lies in; else such folders in it, beside it and in `runs`, likely names first.

    Args:
        marker: `RUN` or `MODEL`, relative to the folder; the folder that it lies in is what is meant.
    """
    inside = Path(marker).parent.parts
    if inside and path.parts[-len(inside) :] == inside:
        path = Path(*path.parts[: -len(inside)])
    found = [folder for folder in (path, *path.parents) if (folder / marker).is_file()][:1]
    if not found:
        places = dict.fromkeys(place for place in (path, path.parent, Path("runs")) if place.is_dir())
        with suppress(OSError):  # what may not be read is none to name
            beside = {f.name: f for place in places for f in sorted(place.iterdir()) if (f / marker).is_file()}
            names = get_close_matches(path.name, beside, n=3) or list(beside)[:3]
            found = [beside[name] for name in names]
    return f"; there are: {', '.join(str((folder / marker).parent) for folder in found)}" if found else ""


def resource_folder(name: str) -> Path:
    """`prompts` or `schemas`: a wheel carries it inside the package, an editable install beside it.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).parent
    places = [package / "_resources" / name, package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(f"no folder {name!r}; looked in {places[0]} and {places[1]}; reinstall pgkd-agent")
