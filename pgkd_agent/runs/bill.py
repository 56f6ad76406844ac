"""What a run will take of its teachers: calls, tokens and money, and the time that its last fit needs."""

from __future__ import annotations

from collections.abc import Sequence

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.runs.observer import Observer
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.teacher.opening import OpenTeacher
from pgkd_agent.teacher.preview import estimate, estimate_with, preview
from pgkd_agent.types import StepRecord


class Bill(Observer):
    """Estimates a range at the start, and a sharper one with the first real prompts.

    Attributes:
        estimate: The sharper one; None before there is one.
    """

    def __init__(self, task: Task, config: PGKDConfig, prices: PriceTable, budget: Budget, observer: Observer) -> None:
        self._task = task
        self._config = config
        self._prices = prices
        self._budget = budget
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
        if not teacher.models or config.teacher.mode == "agent":  # how often it calls is up to the model
            return
        shown = preview(self._task, config)
        if shown.requests and not resumed:
            teacher.require_room(shown.requests[0])
        self._observer.on_estimate(estimate(shown, self._task, config, teacher.models, self._prices))

    def on_plan(self, prompts: Sequence[int]) -> None:
        if self.estimate is None:  # of an ensemble the first that writes makes it
            self.estimate = estimate_with(prompts, prompts, self._task, self._config, self._teachers, self._prices)
            self._observer.on_estimate(self.estimate)

    def on_step(self, record: StepRecord) -> None:
        """Calls end in time for one more fit as long as this one, which tried every rate where it was the plain
        student's, and for the last fits, which have the validation rows too.
        """
        settings, rows = self._config.student, self._task
        rates = settings.learning_rate
        fits = len(rates) if isinstance(rates, tuple) and record.kd_step == 0 else 1
        last_fits = (2 if rows.test else 1) * (1 + len(rows.validation) / len(rows.train)) if settings.refit else 0
        last_fits *= (settings.max_epochs or record.epochs) / max(record.epochs, 1)  # it seldom ends early
        self._budget.seconds_to_leave = record.student_seconds / fits * (1 + last_fits) or self._budget.seconds_to_leave
