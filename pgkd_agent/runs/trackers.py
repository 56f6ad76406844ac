"""A run's figures in an experiment tracker: TensorBoard, MLflow or Weights & Biases, each an extra of its own.

A tracker that fails is said once and left alone: it never ends a run.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig, flat_settings
from pgkd_agent.errors import ConfigError
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.summary import HEADLINE, RunResult
from pgkd_agent.types import StepRecord, TokenUsage

PROJECT = "pgkd_agent"
"""Experiment of MLflow and project of Weights & Biases, where none is named."""

logger = logging.getLogger(__name__)


class Tracker(Observer):
    """Sends on the figures of each step, and those of the outcome."""

    name = ""
    _has_failed = False
    _last_step = 0

    def log(self, figures: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def close(self, is_done: bool) -> None:
        """
        Args:
            is_done: False where the run ended with an error.
        """
        raise NotImplementedError

    def on_step(self, record: StepRecord) -> None:
        self._last_step = record.kd_step
        self.send(self.log, figures_of(record), record.kd_step)

    def on_result(self, result: RunResult) -> None:
        self.send(self.log, outcome_of(result), self._last_step)

    def send(self, action: Callable[..., None], *values: Any) -> None:
        if self._has_failed:
            return
        try:
            action(*values)
        except Exception as error:
            self._has_failed = True
            logger.warning("%s takes no more figures of this run: %s: %s", self.name, type(error).__name__, error)


class TensorBoard(Tracker):
    """
    Args:
        place: Folder for event files; None takes `runs/tensorboard`.
    """

    def __init__(self, place: str | None, name: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(Path(place or "runs/tensorboard") / name))
        lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
        self._writer.add_text("settings", lines)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for key, value in figures.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self, is_done: bool) -> None:
        self._writer.close()


class MLflow(Tracker):
    """
    Args:
        place: Tracking URI; None takes MLflow's own (`MLFLOW_TRACKING_URI`).
    """

    def __init__(self, place: str | None, name: str, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=place)
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        self._run = self._client.create_run(number, run_name=name).info.run_id
        for key, value in settings.items():
            self._client.log_param(self._run, key, value)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for key, value in figures.items():
            self._client.log_metric(self._run, key, value, step=step)

    def close(self, is_done: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if is_done else "FAILED")


class WeightsAndBiases(Tracker):
    """
    Args:
        place: Project; None takes `PROJECT`.
    """

    def __init__(self, place: str | None, name: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project=place or PROJECT, name=name, config=dict(settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self, is_done: bool) -> None:
        self._run.finish(exit_code=0 if is_done else 1)


TRACKERS: dict[str, tuple[str, Callable[[str | None, str, Mapping[str, Any]], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "mlflow": ("mlflow", MLflow),
    "wandb": ("wandb", WeightsAndBiases),
}
"""Package and maker by name."""


@contextmanager
def tracked(spec: str, name: str, config: PGKDConfig) -> Iterator[Observer]:
    """An observer that sends on what it is told.

    Args:
        spec: `tensorboard[:FOLDER]`, `mlflow[:URI]` or `wandb[:PROJECT]`.
        name: Of the run, as it is shown there.
    Raises:
        ConfigError: No such tracker, its package is missing, or it cannot be opened.
    """
    kind, _, place = spec.partition(":")
    if kind not in TRACKERS:
        raise ConfigError(f"tracker {kind!r} is none of {', '.join(TRACKERS)}")
    package, make = TRACKERS[kind]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(f"the package {error.name} is missing; run `pip install 'pgkd-agent[{kind}]'`") from error
    try:
        tracker = make(place or None, name, dict(flat_settings(config)))
    except Exception as error:  # each package has its own
        raise ConfigError(f"{kind} cannot be opened: {error}") from error
    tracker.name = kind
    try:
        yield tracker
    except BaseException:
        tracker.send(tracker.close, False)
        raise
    tracker.send(tracker.close, True)


def figures_of(record: StepRecord) -> dict[str, float]:
    report = record.validation.report
    return {
        "validation/loss": record.validation.loss,
        **{f"validation/{name}": getattr(report, name) for name in HEADLINE},
        "rows": record.history_rows,
        "samples/asked": record.asked,
        "samples/accepted": record.accepted,
        **{f"rejected/{rule}": count for rule, count in record.rejected.items()},
        **_tokens(record.usage),
        "seconds/teacher": record.teacher_seconds,
        "seconds/student": record.student_seconds,
        "seconds/evidence": record.evidence_seconds,
    }


def _tokens(usage: TokenUsage) -> dict[str, float]:
    """Nothing where they are not known."""
    counts = {"teacher/input_tokens": usage.input_tokens, "teacher/output_tokens": usage.output_tokens}
    return {**counts, "teacher/estimated_calls": usage.estimated_calls} if usage.is_known else {}


def outcome_of(result: RunResult) -> dict[str, float]:
    """Of the returned model, and on the test rows of the plain student too."""
    figures: dict[str, float] = {"best_step": result.best_step}
    if result.test:
        for stage, evaluation in (("plain", result.test.before), ("best", result.test.after)):
            figures[f"test/{stage}/loss"] = evaluation.loss
            figures |= {f"test/{stage}/{name}": getattr(evaluation.report, name) for name in HEADLINE}
    if result.teacher.cost is not None:
        figures["teacher/cost"] = result.teacher.cost
    return figures
