"""What a run started from, read back: of one that goes on, has ended or was stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.data import Task
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.files import RUN, nearest, read_lines, target_name
from pgkd_agent.runs.checksums import CHECKSUMS_FILE, check
from pgkd_agent.types import Example, Label

FORMAT = 4
"""Of a run directory, in its `meta.json`; directories of another one are not read."""

LOCK_FILE = ".lock"
"""Held by the process that works on the run; the file itself stays."""
STEP_FILES = ("steps.jsonl", "history.jsonl", "rejected.jsonl", "evidence.jsonl", "transcripts.jsonl")
"""What grows with every step; each row names its `kd_step`."""
POOL_FILE, PREDICTIONS_FILE = "unlabelled.jsonl", "predictions.jsonl"
START_FILES = ("config.yaml", "history.jsonl", "validation.jsonl", "test.jsonl", "meta.json", "calls.sqlite")
"""What is there before anything is trained; beside them the pool, where there is one."""
_OF_BEGINNING = {*START_FILES, POOL_FILE, CHECKSUMS_FILE, LOCK_FILE}
_SINCE_BEGUN = {"meta.json", "calls.sqlite"}


@dataclass(frozen=True)
class StoredRun:
    """What a run started from, read back."""

    config: PGKDConfig
    task: Task
    meta: dict[str, Any]


def read_meta(path: Path) -> dict[str, Any]:
    """What `meta.json` holds.

    Raises:
        ConfigError: It is no run directory.
        StorageError: It is a damaged one, or one of another format.
    """
    file = path / RUN
    if not file.is_file():
        raise ConfigError(f"{path} is no run directory: expected a folder with a {RUN}{nearest(path, RUN)}")
    try:
        meta = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"run directory {path} is damaged: meta.json: {error}") from error
    if (found := meta.get("format")) != FORMAT:
        raise StorageError(
            f"{path} has run format {found or 'none'}, expected {FORMAT}: it was made by another version; make it anew"
        )
    return meta


def read_run(path: Path) -> StoredRun:
    """Read settings, rows and records of a run, also of one that was stopped.

    Raises:
        ConfigError, StorageError: See `read_meta`; or another file is damaged.
    """
    meta = read_meta(path)
    check_files(path)
    try:
        real = [row for row in read_lines(path / "history.jsonl") if row["kd_step"] == 0]
        train, validation, test = (
            tuple(Example(row["text"], row["label"]) for row in rows)
            for rows in (real, read_lines(path / "validation.jsonl"), read_lines(path / "test.jsonl"))
        )
        taxonomy = tuple(Label(**label) for label in meta["taxonomy"])
        pool = tuple(row["text"] for row in read_lines(path / POOL_FILE))
        task = Task(train, validation, test, taxonomy, meta["task_description"], pool)
        return StoredRun(build_config(file=path / "config.yaml"), task, meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"run directory {path} is damaged: {type(error).__name__}: {error}") from error


def check_files(path: Path, settle: bool = False) -> None:
    """
    Args:
        settle: See `check`.
    Raises:
        StorageError: A file of the run is not what was written (`pgkd_agent.runs.checksums`).
    """
    check(path, growing=STEP_FILES, needed={*START_FILES} - {"calls.sqlite"}, settle=settle)


def require_new(path: Path) -> None:
    """Raise a ConfigError where a run cannot begin: at a file, or in a folder that is not empty.

    What a process left that was stopped before its run had begun is nothing: `meta.json` is missing.
    """
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    is_unbegun = LOCK_FILE in names and not names & _SINCE_BEGUN and {*map(target_name, names)} <= _OF_BEGINNING
    if path.is_file() or (names and not is_unbegun):
        raise ConfigError(f"{path} exists already; name another run directory with `out`, or remove it")
