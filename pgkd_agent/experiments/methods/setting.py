"""What a method is given, and what comes out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.loop.history import texts_of
from pgkd_agent.types import Example, FitResult, Probabilities, TokenUsage, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

ClassCounts = Mapping[str, int]
"""Rows per label."""


@dataclass(frozen=True)
class Setting:
    """The same for all methods that are compared.

    Attributes:
        task: With test rows, which only the returned report is about.
        config: Its seed is that of all draws.
        folder: Of this method alone, and there if it asks an LLM; what a killed one left in it is gone on with.
        accepted: What a run of PGKD accepted, a mapping per KD step; for the controls.
        pool: The samples themselves, those of a KD step together; for `frozen`.
        plain_fits: Where the plain student is kept for the methods that begin with it.
    """

    task: Task
    config: PGKDConfig
    folder: Path
    accepted: Sequence[ClassCounts] | None = None
    pool: Sequence[Sequence[Example]] | None = None
    plain_fits: PlainFits = field(default_factory=lambda: PlainFits())


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a method did.

    Attributes:
        validation_loss: Of the returned model in nats, None where it has none.
        accepted: Rows per label that each KD step added.
        rows: Different ones that the last fit trained on.
        gradient_steps: Of all fits.
        cost: As the run says it, of a teacher or several, in the currency of the price table; None where not known.
        seconds: Of wall time, which `run_method` adds to those that a fit which was kept had taken before.
        predict_seconds: That the predictions took, without loading anything; None where not known.
    """

    validation_loss: float | None = None
    accepted: tuple[ClassCounts, ...] = ()
    rows: int = 0
    gradient_steps: int = 0
    requests: int = 0
    cost: float | None = None
    seconds: float = 0.0
    predict_seconds: float | None = None


@dataclass(frozen=True)
class Outcome(Work):
    """
    Attributes:
        predicted: A label per test row, in their order; None where an LLM named none.
        asked: Numbers of the test rows that `predicted` is about; None for all of them.
    """

    predicted: tuple[str | None, ...]
    asked: tuple[int, ...] | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)


def new_student(setting: Setting, **changes: Any) -> TorchStudent:
    """Of a method other than Algorithm 1: it takes labels as they are.

    Args:
        changes: Of the settings' recipe, by field of `TrainingRecipe`.
    """
    return _student(setting, soft_labels=0.0, **changes)


def unselected_student(setting: Setting, epochs: int, **changes: Any) -> TorchStudent:
    """One that goes on from where it is: without validation rows no fit ends early, and no rate can be chosen."""
    from pgkd_agent.student.recipe import recipe_for

    rates = recipe_for(setting.config.student).learning_rates[:1]
    return new_student(setting, max_epochs=epochs, patience=epochs, restart="continue", learning_rates=rates, **changes)


def _student(setting: Setting, **changes: Any) -> TorchStudent:
    from pgkd_agent.student.recipe import recipe_for
    from pgkd_agent.student.student import TorchStudent

    settings = setting.config.student
    recipe = replace(recipe_for(settings), **changes)
    return TorchStudent(settings, setting.task.taxonomy, setting.config.seed, recipe=recipe)


class PlainFits:
    """The plain student of a dataset and seed, trained once for all loops that begin with it.

    Only the last one is kept, 4 bytes a parameter.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._kept: tuple[Any, FitResult, float] | None = None

    def fit(self, setting: Setting, student: TorchStudent, rows: Sequence[Example]) -> tuple[FitResult, float]:
        """Fit to the real rows, or put back what that came to; the seconds are those of the fit either way."""
        validation = setting.task.validation
        key = (setting.config.student, setting.config.seed, tuple(rows), validation)
        if self._kept is None or key != self._key:
            started = time.perf_counter()
            result = student.fit(rows, validation, 0)
            self._key = key
            self._kept = student.snapshot(), result, time.perf_counter() - started
        else:
            snapshot, result, _ = self._kept
            student.restore(snapshot)
            student.learning_rate = result.learning_rate
        return self._kept[1:]


class LoopStudent:
    """The student of a setting in the loop, which has its first fit from `plain_fits`.

    Attributes:
        seconds_saved: That the first fit would have taken.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._student = _student(setting)
        self.reset, self.predict = self._student.reset, self._student.predict
        self.snapshot, self.restore = self._student.snapshot, self._student.restore
        self.seconds_saved = 0.0

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        if kd_step:
            return self._student.fit(rows, validation, kd_step)
        started = time.perf_counter()
        result, seconds = self._setting.plain_fits.fit(self._setting, self._student, rows)
        self.seconds_saved = max(0.0, seconds - (time.perf_counter() - started))
        return result


def batches(rows: int, config: PGKDConfig) -> int:
    """Gradient steps of an epoch."""
    from pgkd_agent.student.recipe import recipe_for

    return recipe_for(config.student).steps_per_epoch(rows)


Predict = Callable[[Sequence[str]], Probabilities]
"""Of texts, shape (n_texts, n_labels)."""


def on_test(setting: Setting, predict: Predict) -> Outcome:
    """What a student says of the test rows; of its training nothing yet."""
    names = label_names(setting.task.taxonomy)
    started = time.perf_counter()
    probabilities = predict(texts_of(setting.task.test))
    seconds = time.perf_counter() - started
    return Outcome(tuple(names[index] for index in probabilities.argmax(axis=1)), predict_seconds=seconds)
