"""How good the model of a run is on the test rows, and how sure of itself it may be; after the loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pgkd_agent.config import StudentSettings
from pgkd_agent.data import Task
from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.algorithm import PGKDResult
from pgkd_agent.loop.history import History, HistoryRow, texts_of
from pgkd_agent.loop.training import rows_again
from pgkd_agent.metrics.calibration import Calibration, errors_of, fit_temperature
from pgkd_agent.metrics.intervals import METRICS, Interval, paired_difference
from pgkd_agent.metrics.report import class_ids, evaluate
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.summary import HEADLINE, BeforeAfter, LastFit, RowPrediction
from pgkd_agent.types import Probabilities, StepRecord, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

logger = logging.getLogger(__name__)

RESAMPLES, FEWEST_RESAMPLES = 1000, 200
"""For the interval of a gain; fewer where test rows are many, whose interval is narrow anyway."""
MOST_DRAWN = 20_000_000
"""Rows drawn in all."""


@dataclass(frozen=True, slots=True)
class Tested:
    """What the models of a run predict, each of shape (n_rows, n_classes).

    Attributes:
        plain, best: Of plain student and returned model on the test rows, one object where they are one model; None
            without test rows.
        validation: Of the chosen model on the validation rows, while they were new to it.
        last_fit: None where there was none.
    """

    plain: Probabilities | None
    best: Probabilities | None
    validation: Probabilities
    last_fit: LastFit | None


class BothModels(Observer):
    """Plain student and returned model, as they are tested: after their last fit, where there is one (`student.refit`).

    A share of the labelled rows is kept from training so that it can choose a model. Once it has, it is worth more as
    rows to train on.
    """

    def __init__(self, task: Task, student: TorchStudent, settings: StudentSettings, observer: Observer) -> None:
        self._task = task
        self._student = student
        self._settings = settings
        self._observer = observer
        self._plain: Probabilities | None = None

    def on_step(self, record: StepRecord) -> None:
        """Predict while the plain student is there: that is less to keep than its weights."""
        if record.kd_step == 0:
            self._plain = self._predict_test()

    def tested(self, training: PGKDResult) -> Tested:
        """After the loop, of which the student is the chosen model; afterwards it is the returned one."""
        step, rows = training.best_step, training.history.rows
        validation = self._student.predict(texts_of(self._task.validation))
        if self._settings.refit:
            chosen = self._student.snapshot()
            try:
                return self._after_last_fits(step, rows, validation)
            except StudentDivergedError as error:
                logger.warning("no last fit, the chosen model is returned as it is: %s", error)
                self._student.restore(chosen)
        return Tested(self._plain, self._predict_test() if step else self._plain, validation, None)

    def _after_last_fits(self, step: int, rows: Sequence[HistoryRow], validation: Probabilities) -> Tested:
        last = self._refit([row for row in rows if row.kd_step <= step], step, "the returned model")
        plain = best = self._predict_test()
        if step and best is not None:
            returned = self._student.snapshot()
            seconds = self._refit([row for row in rows if not row.kd_step], 0, "the plain student").seconds
            plain = self._predict_test()
            self._student.restore(returned)
            last = replace(last, seconds=last.seconds + seconds)
        return Tested(plain, best, validation, last)

    def _refit(self, own: Sequence[HistoryRow], kd_step: int, who: str) -> LastFit:
        started = time.perf_counter()
        rows = (*own, *History.of(self._task.validation).rows)
        self._observer.on_phase(kd_step, f"training {who} once more, on {len(rows)} rows with those that chose it")
        again = rows_again(rows, self._settings.balance)
        self._student.refit([*rows, *again], self._task.validation, kd_step)
        return LastFit(len(rows), time.perf_counter() - started)

    def _predict_test(self) -> Probabilities | None:
        if not self._task.test:
            return None
        self._observer.on_test(len(self._task.test))
        return self._student.predict(texts_of(self._task.test))


def before_after(task: Task, tested: Tested) -> BeforeAfter | None:
    """Evaluate plain student and returned model, and bound what the one has over the other."""
    plain, best = tested.plain, tested.best
    if plain is None or best is None:
        return None
    before = evaluate(plain, task.test, task.taxonomy)
    if best is plain:
        return BeforeAfter(before, before, {})
    gold = class_ids(task.test, task.taxonomy)
    found = gains(gold, plain.argmax(axis=1), best.argmax(axis=1), len(task.taxonomy))
    return BeforeAfter(before, evaluate(best, task.test, task.taxonomy), found)


def row_predictions(task: Task, tested: Tested) -> list[RowPrediction]:
    """What each model predicts of each test row."""
    plain, best = tested.plain, tested.best
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


def calibrate(task: Task, tested: Tested) -> Calibration:
    """Fit the temperature of the returned model on what the chosen one predicted of the validation rows."""
    probabilities, best = tested.validation, tested.best
    gold = class_ids(task.validation, task.taxonomy)
    temperature = fit_temperature(probabilities, gold)
    on_test = None if best is None else errors_of(best, class_ids(task.test, task.taxonomy), temperature)
    return Calibration(temperature, len(gold), errors_of(probabilities, gold, temperature), on_test)


def gains(gold: np.ndarray, before: np.ndarray, after: np.ndarray, num_classes: int) -> dict[str, Interval]:
    """What one model has over another, by metric of `HEADLINE`; a paired bootstrap over the test rows.

    Args:
        gold, before, after: Class ids: true ones, of the other model, of the one; shape (n_rows,).
    """
    resamples = min(RESAMPLES, max(FEWEST_RESAMPLES, MOST_DRAWN // len(gold)))
    found = {
        name: paired_difference(METRICS[name], gold, after[None], before[None], num_classes, resamples=resamples)
        for name in HEADLINE
    }
    return {name: Interval(gain.mean, gain.low, gain.high) for name, gain in found.items()}
