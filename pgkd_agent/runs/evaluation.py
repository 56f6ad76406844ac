"""How good the model of a run is on the test rows, and how sure of itself it may be; after the loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pgkd_agent.data import Task
from pgkd_agent.loop.history import texts_of
from pgkd_agent.metrics.calibration import Calibration, errors_of, fit_temperature
from pgkd_agent.metrics.intervals import METRICS, Interval, paired_difference
from pgkd_agent.metrics.report import class_ids, evaluate
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.summary import HEADLINE, BeforeAfter, RowPrediction
from pgkd_agent.types import Probabilities, StepRecord, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent


RESAMPLES, FEWEST_RESAMPLES = 1000, 200
"""For the interval of a gain; fewer where test rows are many, whose interval is narrow anyway."""
MOST_DRAWN = 20_000_000
"""Rows drawn in all."""


class PlainPredictions(Observer):
    """Keeps what the plain student predicts of the test rows: that is less than its weights, which the loop changes.

    Attributes:
        probabilities: Shape (n_rows, n_classes); None without test rows.
    """

    def __init__(self, task: Task, student: TorchStudent, observer: Observer) -> None:
        self._predict = partial(predict_test, task, student, observer)
        self.probabilities: Probabilities | None = None

    def on_step(self, record: StepRecord) -> None:
        if record.kd_step == 0:
            self.probabilities = self._predict()


def predict_test(task: Task, student: TorchStudent, observer: Observer) -> Probabilities | None:
    """The student as it is now on the test rows; None where there are none."""
    if not task.test:
        return None
    observer.on_test(len(task.test))
    return student.predict(texts_of(task.test))


def before_after(task: Task, plain: Probabilities | None, best: Probabilities | None) -> BeforeAfter | None:
    """Evaluate plain student and returned model, and bound what the one has over the other.

    Args:
        plain, best: Of plain student and returned model on the test rows, one object where they are one model; None
            without test rows.
    """
    if plain is None or best is None:
        return None
    before = evaluate(plain, task.test, task.taxonomy)
    if best is plain:
        return BeforeAfter(before, before, {})
    gold = class_ids(task.test, task.taxonomy)
    found = _gains(gold, plain.argmax(axis=1), best.argmax(axis=1), len(task.taxonomy))
    return BeforeAfter(before, evaluate(best, task.test, task.taxonomy), found)


def row_predictions(task: Task, plain: Probabilities | None, best: Probabilities | None) -> list[RowPrediction]:
    """What each model predicts of each test row; arguments as for `before_after`."""
    if plain is None or best is None:
        return []
    names = label_names(task.taxonomy)
    columns = [
        column
        for probabilities in (plain, best)
        for column in (probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist())
    ]
    return [
        RowPrediction(names[before], sure_before, names[after], sure_after)
        for before, sure_before, after, sure_after in zip(*columns, strict=True)
    ]


def calibrate(task: Task, student: TorchStudent, best: Probabilities | None) -> Calibration:
    """Fit the temperature of the returned model on the validation rows.

    Args:
        student: The returned model.
        best: Its probabilities of the test rows; None without any.
    """
    probabilities = student.predict(texts_of(task.validation))
    gold = class_ids(task.validation, task.taxonomy)
    temperature = fit_temperature(probabilities, gold)
    on_test = None if best is None else errors_of(best, class_ids(task.test, task.taxonomy), temperature)
    return Calibration(temperature, len(gold), errors_of(probabilities, gold, temperature), on_test)


def _gains(gold: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> dict[str, Interval]:
    """What the returned model has over the plain student, by metric; a paired bootstrap over the test rows.

    Args:
        gold, before, after: Class ids: true ones, of the plain student, of the returned model; shape (n_rows,).
    """
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // len(gold)))
    found = {
        name: paired_difference(METRICS[name], gold, after[None], before[None], num_classes, resamples=resamples)
        for name in HEADLINE
    }
    return {name: Interval(gain.mean, gain.low, gain.high) for name, gain in found.items()}
