"""Score rows with the student, so that its rights and wrongs can be shown (`evidence.source`)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.loop.evidence import score_rows
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.protocols import Student
from pgkd_agent.loop.training import fit_history
from pgkd_agent.seeding import rng
from pgkd_agent.types import EvidenceItem, Example, FitResult

FOLDS = 3
"""Parts of the history for `out_of_fold`; a fit to all others predicts each."""


def score_history(
    student: Student,
    history: History,
    fit: FitResult,
    task: Task,
    config: PGKDConfig,
    kd_step: int,
) -> list[EvidenceItem]:
    """Score what the evidence of a KD step is drawn from; the student is the same afterwards.

    Args:
        fit: The student's last one, over all rows of the history.
    Returns:
        An item per row of the history, in its order.
    """
    source = config.evidence.source
    if source == "history":
        probabilities = student.predict(texts_of(history.rows))
    elif source == "out_of_fold":
        folds = stratified_folds(history.rows, FOLDS, rng(config.seed, kd_step, "folds"))
        probabilities = _out_of_fold(student, history, folds, task, config, kd_step)
    else:
        probabilities = fit.dynamics
    return score_rows(history.rows, probabilities, task.taxonomy)


def stratified_folds(rows: Sequence[Example], folds: int, random: random.Random) -> list[list[int]]:
    """Row numbers in `folds` parts, each class spread evenly; parts may be empty where rows are few."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_class[row.label].append(number)
    dealt: list[int] = []
    for label in sorted(by_class):
        random.shuffle(by_class[label])
        dealt += by_class[label]
    return [dealt[fold::folds] for fold in range(folds)]


def _out_of_fold(
    student: Student, history: History, folds: Sequence[Sequence[int]], task: Task, config: PGKDConfig, kd_step: int
) -> np.ndarray:
    """Probabilities of each row by a model that was not trained on it, shape (n_rows, n_classes)."""
    state, rows = student.snapshot(), history.rows
    probabilities = np.empty((len(rows), len(task.taxonomy)))
    for fold in filter(None, folds):
        held_out = set(fold)
        student.reset()  # a student that continues would have seen the fold
        others = History(tuple(row for number, row in enumerate(rows) if number not in held_out))
        fit_history(student, others, task.validation, kd_step, config.student.balance)
        probabilities[list(fold)] = student.predict([rows[number].text for number in fold])
    student.restore(state)
    return probabilities
