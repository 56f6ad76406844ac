"""Files that others read while they grow: written whole or a line at a time, held by one process; package folders."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pgkd_agent.errors import ConfigError, PGKDError, StorageError

RUN, MODEL = "meta.json", "models/best/config.json"
"""What makes a folder a run directory, and what it has once there is a model."""

_LINE_ENDS = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file of a run; none where the file is not there yet, and no half line of a stopped run.

    Raises:
        StorageError: A line is not JSON.
    """
    if not path.is_file():
        return []
    content = path.read_text(encoding="utf-8")
    try:
        return [json.loads(line) for line in content[: content.rfind("\n") + 1].split("\n") if line]
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}") from error


def lock(file: Path, what: str) -> FileLock:
    """Hold a file until it is released, or this process ends.

    Raises:
        StorageError: Another process holds it, or it cannot be made.
    """
    held = FileLock(file, timeout=0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
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
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a", encoding="utf-8", errors="backslashreplace") as file:  # in JSON, a surrogate's escape
            file.write("".join(map(as_line, rows)))
            file.flush()
            os.fsync(file.fileno())


def write_whole(target: Path, content: str) -> None:
    """Write a file, and the folder that it lies in, so that it is there whole or as it was before; on disk when this
    returns. Several processes may write the same one.

    Raises:
        StorageError: The disk is full or refuses.
    """
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}.new")
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise


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
