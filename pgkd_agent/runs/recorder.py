"""What a run does beside Algorithm 1: store each step, tell who watches, test, calibrate, add up the bill."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pgkd_agent.config import PGKDConfig, StudentSettings
from pgkd_agent.data import Task
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.protocols import Asked
from pgkd_agent.metrics.calibration import Calibration, errors_of, fit_temperature
from pgkd_agent.metrics.report import class_ids, evaluate
from pgkd_agent.runs.directory import RunDirectory
from pgkd_agent.runs.report import write_card, write_report
from pgkd_agent.runs.summary import BeforeAfter, RunResult, before_after
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.teacher.opening import OpenTeacher
from pgkd_agent.teacher.preview import estimate, estimate_with, preview
from pgkd_agent.types import Evaluation, Probabilities, StepRecord

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

logger = logging.getLogger(__name__)


class Observer:
    """What is told while a run goes; override what is of interest."""

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        """After each epoch of a fit."""

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        """After each request to the teacher."""

    def on_estimate(self, estimate: Estimate) -> None:
        """At the start, and again with the first real prompts, before they are sent."""

    def on_step(self, record: StepRecord) -> None:
        """After each model's evaluation."""

    def on_test(self, n_rows: int) -> None:
        """Before the test rows are predicted."""

    def on_result(self, result: RunResult) -> None:
        """In the end."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        for observer in self._observers:
            observer.on_epoch(epoch, max_epochs, validation_loss)

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        for observer in self._observers:
            observer.on_request(kd_step, answered, planned)

    def on_estimate(self, estimate: Estimate) -> None:
        for observer in self._observers:
            observer.on_estimate(estimate)

    def on_step(self, record: StepRecord) -> None:
        for observer in self._observers:
            observer.on_step(record)

    def on_test(self, n_rows: int) -> None:
        for observer in self._observers:
            observer.on_test(n_rows)

    def on_result(self, result: RunResult) -> None:
        for observer in self._observers:
            observer.on_result(result)


class StepKeeper:
    """Stores each step, tells the observer, and keeps what the plain student does on the test rows."""

    def __init__(
        self,
        task: Task,
        student: TorchStudent,
        directory: RunDirectory | None,
        budget: Budget,
        observer: Observer,
        student_settings: StudentSettings,
    ) -> None:
        self._task = task
        self._student = student
        self._directory = directory
        self._budget = budget
        self._observer = observer
        self._settings = student_settings
        self._tested: list[tuple[Evaluation, Probabilities]] = []

    def __call__(self, record: StepRecord, history: History, asked: Asked | None) -> None:
        if self._directory:
            self._directory.add_step(record, asked, self._student)
            if self._directory.has_new_steps:
                write_pages(self._directory.path)
        self._observer.on_step(record)
        self._budget.seconds_to_leave = self._next_fit(record) or self._budget.seconds_to_leave
        if record.kd_step == 0 and self._task.test:
            self._test()

    def _next_fit(self, record: StepRecord) -> float:
        """Seconds of a fit as long as that of this step; the first one tried every rate."""
        rates = self._settings.learning_rate
        tried = len(rates) if isinstance(rates, tuple) and not record.kd_step else 1
        return record.student_seconds / tried

    def before_after(self, best_step: int) -> BeforeAfter | None:
        """On the test rows; None where there are none. The student is the returned model by now."""
        if not self._tested:
            return None
        (before, _), *_ = self._tested
        if best_step == 0:
            return BeforeAfter(before, before, {})
        self._test()
        predicted = [probabilities.argmax(axis=1) for _, probabilities in self._tested]
        return before_after(before, self._tested[-1][0], class_ids(self._task.test, self._task.taxonomy), predicted)

    def calibration(self) -> Calibration:
        """Of the returned model, after `before_after`."""
        task = self._task
        probabilities = self._student.predict(texts_of(task.validation))
        gold = class_ids(task.validation, task.taxonomy)
        temperature = fit_temperature(probabilities, gold)
        on_test = None
        if self._tested:
            on_test = errors_of(self._tested[-1][1], class_ids(task.test, task.taxonomy), temperature)
        return Calibration(temperature, len(gold), errors_of(probabilities, gold, temperature), on_test)

    def _test(self) -> None:
        """The student as it is now on the test rows."""
        test = self._task.test
        self._observer.on_test(len(test))
        probabilities = self._student.predict(texts_of(test))
        self._tested.append((evaluate(probabilities, test, self._task.taxonomy), probabilities))


class Bill:
    """What the run will take of its teachers: a range at the start, and sharper with the first real prompts."""

    def __init__(self, task: Task, config: PGKDConfig, prices: PriceTable, observer: Observer) -> None:
        self._task = task
        self._config = config
        self._prices = prices
        self._observer = observer
        self._teachers: Sequence[str] = ()
        self.estimate: Estimate | None = None

    def at_start(self, teacher: OpenTeacher, resumed: bool) -> None:
        """
        Args:
            resumed: Of a run that goes on what it asks first may be in its log.
        Raises:
            BudgetExceededError: The caps leave no room for the first request.
        """
        config = self._config
        self._teachers = teacher.models
        if config.teacher.mode == "agent":  # how often it calls is up to the model
            return
        shown = preview(self._task, config)
        if not resumed:
            teacher.require_room(shown.requests[0])
        self._observer.on_estimate(estimate(shown, self._task, config, teacher.models, self._prices))

    def on_plan(self, prompts: Sequence[int]) -> None:
        if self.estimate:  # of an ensemble the first that writes has made it
            return
        self.estimate = estimate_with(prompts, prompts, self._task, self._config, self._teachers, self._prices)
        self._observer.on_estimate(self.estimate)


def write_pages(run: Path) -> None:
    """Report and model card; whatever is wrong with them, the run itself goes on."""
    try:
        write_report(run)
        write_card(run)
    except Exception as error:
        logger.warning("no report of %s: %s: %s; `pgkd report` makes it later", run, type(error).__name__, error)
