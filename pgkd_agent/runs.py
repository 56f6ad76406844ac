"""The run directory: all that a run decided, saw and made, readable while it goes and after a crash.

config.yaml       resolved settings            history.jsonl   training rows with provenance
meta.json         versions, ids, hashes        rejected.jsonl  rejected samples with rule and reason
steps.jsonl       a line a step                calls.sqlite    prompts and raw replies
result.json       the outcome                  models/         best/ and last/, Hugging Face layout
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pgkd_agent.config import PGKDConfig, to_yaml
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.history import History
from pgkd_agent.protocols import Asked
from pgkd_agent.types import StepRecord

RECORDED_PACKAGES = (
    "pgkd-agent",
    "torch",
    "transformers",
    "langchain",
    "langchain-core",
    "langchain-openai",
    "scikit-learn",
    "numpy",
)


class Savable(Protocol):
    def save(self, folder: Path) -> None: ...


class RunDirectory:
    """Writes whole files atomically, and appends whole lines.

    Raises:
        StorageError: The disk is full or refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Make a new run directory.

        Raises:
            ConfigError: It exists and is not empty; nothing in it is touched.
        """
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ConfigError(f"{path} exists already; name another run directory with --out, or remove it")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"run directory {path} cannot be made: {error.strerror or error}") from error
        return cls(path)

    @property
    def calls(self) -> Path:
        return self.path / "calls.sqlite"

    @property
    def best_model(self) -> Path:
        return self.path / "models" / "best"

    def write_start(self, config: PGKDConfig, meta: dict[str, Any], history: History) -> None:
        self._write("config.yaml", to_yaml(config))
        self._write_json("meta.json", {**environment(), **meta})
        self._write("history.jsonl", "".join(_line(asdict(row)) for row in history.rows))

    def add_step(self, record: StepRecord, asked: Asked | None, student: Savable) -> None:
        """Store a step; weights before the line that says they are there."""
        student.save(self.path / "models" / "last")
        if record.is_best:
            student.save(self.best_model)
        if asked is not None:
            self._append("history.jsonl", (asdict(row) for row in asked.rows))
            self._append(
                "rejected.jsonl",
                ({"kd_step": record.kd_step, **asdict(item)} for item in asked.screened.rejected),
            )
        self._append("steps.jsonl", [asdict(record)])

    def write_result(self, result: dict[str, Any]) -> None:
        self._write_json("result.json", result)

    def _write_json(self, name: str, content: Any) -> None:
        self._write(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _write(self, name: str, content: str) -> None:
        target = self.path / name
        fresh = target.with_name(name + ".new")

        def write() -> None:
            with fresh.open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, target)

        _stored(write, target)

    def _append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        target = self.path / name

        def append() -> None:
            with target.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, rows)))
                file.flush()
                os.fsync(file.fileno())

        _stored(append, target)


def environment() -> dict[str, Any]:
    """Versions and machine, and the git commit of the working directory where there is one."""
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _stored(action: Callable[[], None], target: Path) -> None:
    try:
        action()
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}; what was stored before is kept"
        ) from error
