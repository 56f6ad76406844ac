"""What a run writes down while it goes."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent import version
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.loop.protocols import Asked
from pgkd_agent.loop.trust import GoldCheck
from pgkd_agent.runs.directory import RunDirectory
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.report import write_card, write_report
from pgkd_agent.runs.summary import RowPrediction, RunResult
from pgkd_agent.teacher.opening import OpenTeacher
from pgkd_agent.teacher.prompting.templates import PromptTemplate
from pgkd_agent.types import StepRecord

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "langchain",
    "langchain-core",
    "langchain-openai",
    "scikit-learn",
    "numpy",
)

logger = logging.getLogger(__name__)


class Recorder(Observer):
    """Keeps nothing: for a run without a directory.

    Attributes:
        path: The run directory, or None.
        calls: File for the calls, or None.
        num_stored_steps: Steps that are stored whole, and are only replayed.
    """

    path: Path | None = None
    calls: Path | None = None
    num_stored_steps = 0

    def begin(self, config: PGKDConfig, meta: Mapping[str, Any], task: Task) -> None:
        """Store what the run starts from."""

    def keep(self) -> None:
        """From now on the run has begun, and is there to be resumed."""


class RunRecorder(Recorder):
    """Writes the run directory, and its pages after each step."""

    def __init__(self, directory: RunDirectory, student: TorchStudent) -> None:
        self._directory = directory
        self._student = student
        self._asked: Asked | None = None
        self._predictions: Sequence[RowPrediction] = ()
        self.path = directory.path
        self.calls = directory.calls
        self.num_stored_steps = directory.num_stored_steps

    def begin(self, config: PGKDConfig, meta: Mapping[str, Any], task: Task) -> None:
        self._directory.write_start(config, meta, task)

    def keep(self) -> None:
        self._directory.keep()

    def on_gold(self, check: GoldCheck) -> None:
        self._directory.write_gold(asdict(check))

    def on_transcript(self, kd_step: int, messages: Sequence[Mapping[str, Any]]) -> None:
        self._directory.add_transcript(kd_step, messages)

    def on_samples(self, asked: Asked) -> None:
        self._asked = asked

    def on_step(self, record: StepRecord) -> None:
        self._directory.add_step(record, self._asked, self._student)
        if self._directory.has_new_steps:
            write_pages(self._directory.path)

    def on_predictions(self, predictions: Sequence[RowPrediction]) -> None:
        self._predictions = predictions

    def on_result(self, result: RunResult) -> None:
        returned = self._student if result.last_fit else None
        self._directory.write_result(asdict(result), map(asdict, self._predictions), returned)
        write_pages(self._directory.path)  # also of a run that was stopped between its outcome and its pages


@contextmanager
def recording(out: Path | None, resumed: bool, student: TorchStudent) -> Iterator[Recorder]:
    """Hold the run directory while the run goes; of a run that failed before it began, nothing is left.

    Args:
        out: None keeps nothing on disk.
    Raises:
        ConfigError, StorageError: See `RunDirectory`.
    """
    if out is None:
        yield Recorder()
        return
    with closing(RunDirectory.reopen(out) if resumed else RunDirectory.create(out)) as directory:
        directory.require_space(student.size_bytes)
        yield RunRecorder(directory, student)


def run_meta(
    config: PGKDConfig,
    task: Task,
    template: PromptTemplate,
    teacher: OpenTeacher,
    student: TorchStudent,
    checks: Iterable[str],
) -> dict[str, Any]:
    """What is noted of a run when it starts: machine, versions, who teaches whom with which prompt."""
    return {
        **environment(),
        "seed": config.seed,
        "teacher": teacher.name,
        "prompt": {"name": template.name, "sha256": template.hash},
        "checks": sorted(checks),
        "student": {"name": config.student.name, **student.description},
        "rows": {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)},
    }


def environment() -> dict[str, Any]:
    """Versions and machine, and the git commit of the working directory where there is one."""
    versions = {"pgkd-agent": version.VERSION}
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


def write_pages(run: Path) -> None:
    """Report and model card; whatever is wrong with them, the run itself goes on."""
    try:
        write_report(run)
        write_card(run)
    except Exception as error:
        logger.warning("no report of %s: %s: %s; `pgkd report` makes it later", run, type(error).__name__, error)
