"""Methods that train on the real rows and variants of them: no LLM, one fit or a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pgkd_agent.experiments.methods.eda import WORDNET, augment, wordnet_synonyms
from pgkd_agent.experiments.methods.method import HARD_LABELS, Count, Method, Options, Share
from pgkd_agent.experiments.methods.setting import Outcome, Setting, new_student, on_test, unselected_student
from pgkd_agent.loop.history import texts_of
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.seeding import rng
from pgkd_agent.types import Example, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Alpha of EDA in the stages of `gradual`; the first has the real rows alone."""


class RowOptions(Options):
    shots: Count | None = None
    """Real rows of each class, trained on for a fixed number of steps; None takes all, and validation rows."""
    steps: Count | None = None
    """Gradient steps, rounded up to whole epochs; None takes the student's epochs."""


class FewRowsOptions(RowOptions):
    shots: Count = 1


class GradualOptions(RowOptions):
    num_aug: Count = 9
    """Variants of each row."""
    wordnet: str = str(WORDNET)
    """Where its files are."""


class EDAOptions(GradualOptions):
    alpha: Share = 0.1
    """Share of the words that an operation changes."""


def no_augment(setting: Setting, options: FewRowsOptions) -> Outcome:
    """Cross-entropy on `shots` real rows of each class, for a fixed number of steps; validation rows are not used."""
    return train_in_stages(setting, [take_shots(setting, options.shots)], options.steps, uses_validation=False)


def eda(setting: Setting, options: EDAOptions) -> Outcome:
    """Real rows and `num_aug` variants of each by EDA (Wei and Zou 2019)."""
    rows = _with_variants(setting, take_shots(setting, options.shots), options.alpha, options)
    return train_in_stages(setting, [rows], options.steps, options.shots is None)


def gradual(setting: Setting, options: GradualOptions) -> Outcome:
    """EDA as a curriculum: real rows first, then variants that differ more and more, in equal parts of the steps.

    A reconstruction of the gradual curriculum of Wei et al. (2021) for a classifier with cross-entropy.
    """
    real = take_shots(setting, options.shots)
    stages = [_with_variants(setting, real, alpha, options) if alpha else real for alpha in STRENGTHS]
    return train_in_stages(setting, stages, options.steps, options.shots is None)


def train_in_stages(
    setting: Setting, stages: Sequence[Sequence[Example]], steps: int | None, uses_validation: bool
) -> Outcome:
    """One fit a stage, each from the weights of the one before."""
    student, task = _student(setting, stages, steps, uses_validation), setting.task
    done = 0
    for number, rows in enumerate(stages):
        done += student.fit(rows, task.validation if uses_validation else rows, number).gradient_steps
    loss = None
    if uses_validation:
        loss = evaluate(student.predict(texts_of(task.validation)), task.validation, task.taxonomy).loss
    return replace(
        on_test(setting, student.predict),
        validation_loss=loss,
        rows=len(stages[-1]),
        gradient_steps=done,
    )


def _student(
    setting: Setting, stages: Sequence[Sequence[Example]], steps: int | None, uses_validation: bool
) -> TorchStudent:
    """Its epochs are those of a stage, from the steps of all."""
    from pgkd_agent.student.recipe import recipe_for

    recipe = recipe_for(setting.config.student)
    if steps is None:
        epochs = math.ceil(recipe.max_epochs / len(stages))
    else:
        epochs = math.ceil(steps / sum(recipe.steps_per_epoch(len(rows)) for rows in stages))
    if uses_validation:
        return new_student(setting, max_epochs=epochs, restart="continue")
    return unselected_student(setting, epochs)


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


def _with_variants(setting: Setting, rows: Sequence[Example], alpha: float, options: GradualOptions) -> list[Example]:
    synonyms = wordnet_synonyms(Path(options.wordnet))
    drawn = rng(setting.config.seed, 0, f"eda/{alpha}")
    texts = [(augment(row.text, synonyms, drawn, alpha, options.num_aug), row.label) for row in rows]
    return [*rows, *(Example(text, label) for variants, label in texts for text in variants)]


METHODS = (
    Method("no_augment", no_augment, FewRowsOptions, ("student",), ignores=HARD_LABELS),
    Method("eda", eda, EDAOptions, ("student",), ignores=HARD_LABELS),
    Method("gradual", gradual, GradualOptions, ("student",), ignores=HARD_LABELS),
)
