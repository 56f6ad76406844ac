"""Methods that train on the real rows and variants of them: no LLM, one fit or a few."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pgkd_agent.experiments.methods.eda import WORDNET, augment, wordnet_synonyms
from pgkd_agent.experiments.methods.setting import Outcome, Setting, new_student, on_test
from pgkd_agent.loop.history import texts_of
from pgkd_agent.loop.protocols import Student
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.seeding import rng
from pgkd_agent.types import Example, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Alpha of EDA in the stages of `gradual`; the first has the real rows alone."""


def no_augment(setting: Setting, shots: int = 1, steps: int | None = None) -> Outcome:
    """Cross-entropy on `shots` real rows of each class, for a fixed number of steps; validation rows are not used."""
    return train_in_stages(setting, [take_shots(setting, shots)], steps, uses_validation=False)


def eda(
    setting: Setting,
    shots: int | None = None,
    steps: int | None = None,
    alpha: float = 0.1,
    num_aug: int = 9,
    wordnet: str = str(WORDNET),
) -> Outcome:
    """Real rows and `num_aug` variants of each by EDA (Wei and Zou 2019).

    Args:
        shots: Real rows of each class, trained on for a fixed number of steps; None takes all, and validation rows.
        steps: Gradient steps, rounded up to whole epochs; None takes the student's epochs.
    """
    real = take_shots(setting, shots)
    return train_in_stages(setting, [_with_variants(setting, real, alpha, num_aug, wordnet)], steps, shots is None)


def gradual(
    setting: Setting,
    shots: int | None = None,
    steps: int | None = None,
    num_aug: int = 9,
    wordnet: str = str(WORDNET),
) -> Outcome:
    """EDA as a curriculum: real rows first, then variants that differ more and more, in equal parts of the steps.

    A reconstruction of the gradual curriculum of Wei et al. (2021) for a classifier with cross-entropy; arguments as
    those of `eda`.
    """
    real = take_shots(setting, shots)
    stages = [_with_variants(setting, real, alpha, num_aug, wordnet) if alpha else real for alpha in STRENGTHS]
    return train_in_stages(setting, stages, steps, shots is None)


def train_in_stages(
    setting: Setting, stages: Sequence[Sequence[Example]], steps: int | None, uses_validation: bool
) -> Outcome:
    """One fit a stage, each from the weights of the one before."""
    started = time.perf_counter()
    student = _student(setting, stages, steps, uses_validation)
    done = 0
    for number, rows in enumerate(stages):
        done += student.fit(rows, setting.task.validation if uses_validation else rows, number).gradient_steps
    return Outcome(
        *on_test(setting, student.predict),
        validation_loss=_validation_loss(setting, student) if uses_validation else None,
        rows=len(stages[-1]),
        gradient_steps=done,
        seconds=time.perf_counter() - started,
    )


def _student(
    setting: Setting, stages: Sequence[Sequence[Example]], steps: int | None, uses_validation: bool
) -> TorchStudent:
    """Its epochs are those of a stage, from the steps of all; without validation rows no fit ends early."""
    from pgkd_agent.student.recipe import recipe_for

    recipe = recipe_for(setting.config.student)
    if steps is None:
        epochs = math.ceil(recipe.max_epochs / len(stages))
    else:
        epochs = math.ceil(steps / sum(recipe.steps_per_epoch(len(rows)) for rows in stages))
    if uses_validation:
        return new_student(setting, max_epochs=epochs, restart="continue")
    rates = recipe.learning_rates[:1]  # nothing to choose one by
    return new_student(setting, max_epochs=epochs, restart="continue", patience=epochs, learning_rates=rates)


def take_shots(setting: Setting, shots: int | None) -> list[Example]:
    """This many training rows of each class, of a smaller class all."""
    rows = list(setting.task.train)
    if shots is None:
        return rows
    rng(setting.config.seed, 0, "shots").shuffle(rows)
    return [
        row
        for name in label_names(setting.task.taxonomy)
        for row in islice((row for row in rows if row.label == name), shots)
    ]


def _with_variants(
    setting: Setting, rows: Sequence[Example], alpha: float, num_aug: int, wordnet: str
) -> list[Example]:
    synonyms = wordnet_synonyms(Path(wordnet))
    drawn = rng(setting.config.seed, 0, f"eda/{alpha}")
    variants = [Example(text, row.label) for row in rows for text in augment(row.text, synonyms, drawn, alpha, num_aug)]
    return [*rows, *variants]


def _validation_loss(setting: Setting, student: Student) -> float:
    task = setting.task
    return evaluate(student.predict(texts_of(task.validation)), task.validation, task.taxonomy).loss
