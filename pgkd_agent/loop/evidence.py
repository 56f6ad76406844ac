"""Select what the teacher is shown of the student's rights and wrongs (Algorithm 1, lines 4-5)."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from pgkd_agent.errors import DataError
from pgkd_agent.text import counted
from pgkd_agent.types import (
    Evidence,
    EvidenceItem,
    Example,
    Label,
    Probabilities,
    label_names,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvidenceLimits:
    """Most items per pool, >= 0; zero disables a pool. The paper shows 16 of each."""

    correct: int = 16
    misclassified: int = 16
    hard_negatives: int = 16


def score_rows(rows: Sequence[Example], probabilities: Probabilities, taxonomy: Sequence[Label]) -> list[EvidenceItem]:
    """Pair each row with the student's prediction.

    Raises:
        DataError: A gold label is outside the taxonomy.
    """
    names = label_names(taxonomy)
    unknown = {row.label for row in rows} - set(names)
    if unknown:
        raise DataError(f"gold labels outside the taxonomy: {sorted(unknown)}")
    best = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(best)), best]
    return [
        EvidenceItem(row.text, row.label, names[b], float(c)) for row, b, c in zip(rows, best, confidence, strict=True)
    ]


def select_evidence(items: Sequence[EvidenceItem], limits: EvidenceLimits, random: random.Random) -> Evidence:
    """Fill the three pools.

    Hard negatives are the misclassified rows with the highest p(predicted), ties in input order. The
    misclassified pool is drawn from the rest, the correct pool from the right ones; both
    class-balanced by the gold label. Pools may be shorter than the limits, or empty.
    """
    wrong = [item for item in items if item.predicted_label != item.gold_label]
    wrong.sort(key=lambda item: -item.confidence)
    hard_negatives = wrong[: limits.hard_negatives]
    right = [item for item in items if item.predicted_label == item.gold_label]
    return Evidence(
        correct=tuple(balanced_sample(right, limits.correct, random, _gold)),
        misclassified=tuple(balanced_sample(wrong[len(hard_negatives) :], limits.misclassified, random, _gold)),
        hard_negatives=tuple(hard_negatives),
    )


def evidence_of_class(
    items: Sequence[EvidenceItem], label: str, limits: EvidenceLimits, random: random.Random
) -> Evidence:
    """The pools of one class: its own rows, and rows of others that were taken for it."""
    return select_evidence([item for item in items if label in (item.gold_label, item.predicted_label)], limits, random)


def evidence_of_pair(
    items: Sequence[EvidenceItem], pair: tuple[str, str], limits: EvidenceLimits, random: random.Random
) -> Evidence:
    """The pools of two classes: their own rows, but of the wrong ones only those taken for the other class."""
    within = [item for item in items if item.gold_label in pair and item.predicted_label in pair]
    return select_evidence(within, limits, random)


def log_one_sided(scored: Sequence[EvidenceItem], source: str, kd_step: int) -> None:
    """Say where the prompts of a step cannot have one kind of rows, and that this is as it may be.

    Args:
        source: Where the predictions are from, `evidence.source`.
    """
    right = sum(item.predicted_label == item.gold_label for item in scored)
    if right in (0, len(scored)):
        logger.info(
            "KD step %d: the student gets %s %s right (evidence.source: %s), so the prompts show %s; this is no error",
            kd_step,
            "all" if right else "none of",
            counted(len(scored), "row"),
            source,
            "no mistakes" if right else "mistakes only",
        )


def _gold(item: EvidenceItem) -> str:
    return item.gold_label


class _HasText(Protocol):
    @property
    def text(self) -> str: ...


RowT = TypeVar("RowT", bound=_HasText)


def balanced_sample(
    rows: Iterable[RowT], size: int, random: random.Random, label_of: Callable[[RowT], str]
) -> list[RowT]:
    """Draw up to `size` rows so that the counts per class differ by one at most, where rows allow it."""
    by_class: dict[str, list[RowT]] = defaultdict(list)
    for row in rows:
        by_class[label_of(row)].append(row)
    queues = [by_class[label] for label in sorted(by_class)]
    for queue in queues:
        random.shuffle(queue)
    random.shuffle(queues)
    drawn: list[RowT] = []
    depth = 0
    while len(drawn) < size and any(len(queue) > depth for queue in queues):
        drawn += [queue[depth] for queue in queues if len(queue) > depth][: size - len(drawn)]
        depth += 1
    return drawn
