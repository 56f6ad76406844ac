"""What the files of a run were when they were written, so that a damaged one is named and never gone on with.

Before a file is written, a line in `checksums.jsonl` says what it is going to be. So only the file of the last line may
be as it was before that, where a process was killed in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from pgkd_agent.errors import StorageError
from pgkd_agent.files import append_lines, as_line, read_lines, write_whole

CHECKSUMS_FILE = "checksums.jsonl"


def note(run: Path, name: str, content: bytes) -> None:
    """Say what a file is going to hold.

    Args:
        name: Of the file, in the run directory.
        content: All of it.
    Raises:
        StorageError: The disk refuses.
    """
    append_lines(run / CHECKSUMS_FILE, [{"file": name, "bytes": len(content), "sha256": _digest(content)}])


def check(run: Path, growing: Container[str], needed: Container[str], settle: bool = False) -> None:
    """Compare the files of a run with its checksums; a run without any is taken as it is.

    Args:
        growing: Files that rows are added to: what comes after those that were noted is not looked at.
        needed: Files that have to be there.
        settle: Drop what was said of a file that was never written, for the one that holds the run.
    Raises:
        StorageError: One of them is missing, or is not what was written.
    """
    if not (run / CHECKSUMS_FILE).is_file():
        return
    try:
        lines = read_lines(run / CHECKSUMS_FILE)
        noted: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            noted.setdefault(line["file"], []).append(line)
        unlike = [name for name, own in noted.items() if not _is_like(run / name, own[-1], name in growing)]
        unwritten = [
            name
            for name in unlike
            if name == lines[-1]["file"] and _is_before(run / name, noted[name], name in growing)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{run / CHECKSUMS_FILE} is damaged: {type(error).__name__}: {error}") from error
    for name in unlike:
        if (run / name).is_file() and name not in unwritten:
            raise StorageError(
                f"run directory {run} is damaged: {name} is not what was written. Put it back from a copy, or "
                f"start a new run; where you changed it yourself, and mean it, remove {CHECKSUMS_FILE}"
            )
        if not (run / name).is_file() and name in needed:
            raise StorageError(f"run directory {run} is damaged: {name} is missing; put it back from a copy")
    is_half = not (run / CHECKSUMS_FILE).read_bytes().endswith(b"\n")  # of a last line that was killed in the middle
    if settle and (unwritten or is_half):
        write_whole(run / CHECKSUMS_FILE, "".join(map(as_line, lines[:-1] if unwritten else lines)))


def _is_like(file: Path, line: dict[str, Any], is_growing: bool) -> bool:
    """Whether a file is there as a line says, what was added since apart."""
    if not file.is_file():
        return False
    content = file.read_bytes()
    return _begins(content, line) and (is_growing or len(content) == line["bytes"])


def _is_before(file: Path, lines: Sequence[dict[str, Any]], is_growing: bool) -> bool:
    """Whether a file is as it was before it became what the last line says, or half way there."""
    content = file.read_bytes() if file.is_file() else b""
    last, before = lines[-1], lines[-2] if len(lines) > 1 else {"bytes": 0, "sha256": _digest(b"")}
    is_half = is_growing and len(content) < last["bytes"]
    return _begins(content, before) and (is_half or len(content) == before["bytes"])


def _begins(content: bytes, line: dict[str, Any]) -> bool:
    size = line["bytes"]
    return len(content) >= size and bool(_digest(content[:size]) == line["sha256"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
