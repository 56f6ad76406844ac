"""Turn the validation report into a plan: which classes, or pairs of them, to ask samples for, and how many."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pgkd_agent.types import ClassificationReport, ClassMetrics, Confusion, EvidenceItem

PRIOR_ROWS = 5.0
"""Validation rows that the mean F1 counts for: a class with 2 rows says little about itself."""

MIN_WEIGHT = 0.05
"""Keeps a class with F1 1.0 on a handful of rows in the draw."""

Pair = tuple[str, str]
DrawnT = TypeVar("DrawnT")


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request about one class or, with `rival`, about two that are taken for each other."""

    label: str
    num_samples: int
    rival: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.label,) if self.rival is None else (self.label, self.rival)


def plan_requests(
    report: ClassificationReport,
    num_samples: int,
    samples_per_request: int,
    random: random.Random,
    asked: Mapping[str, int] | None = None,
) -> list[PlannedRequest]:
    """Split `num_samples` into requests about one class each; weak classes come first.

    Of the classes that were asked about least often, some are drawn without repetition, with probability proportional
    to 1 - F1, where F1 is shrunk toward the mean by support. Drawn anew in each step, weak classes would come again and
    again before others have come at all; with a writer that makes no mistakes that is a point of accuracy worse.

    Args:
        asked: How often each class was asked about in earlier steps.
    """
    sizes, times = _sizes(num_samples, samples_per_request), Counter(asked)
    labels: list[str] = []
    while len(labels) < len(sizes):
        drawn = sorted(_draw(report, random), key=times.__getitem__)
        labels += drawn[: len(sizes) - len(labels)]
    return [PlannedRequest(label, size) for label, size in zip(labels, sizes, strict=True)]


def plan_pairs(
    sources: Sequence[Sequence[Confusion]],
    report: ClassificationReport,
    num_samples: int,
    samples_per_request: int,
    random: random.Random,
) -> list[PlannedRequest]:
    """Split `num_samples` into requests about two classes each; pairs often confused come up more often.

    Pairs are drawn without repetition, with probability proportional to their mistakes in both directions.
    Pairs of the weakest class with all others follow where the sources hold too few, in random order; only
    when these too are used up does a pair come twice.

    Args:
        sources: Counts of confusions; a source is drawn from when those before it are used up.
        report: Of at least two classes, all that the sources name among them.
    """
    sizes = _sizes(num_samples, samples_per_request)
    pairs: list[Pair] = []
    while len(pairs) < len(sizes):
        pairs += _draw_pairs(sources, report, random)[: len(sizes) - len(pairs)]
    return [PlannedRequest(label, size, rival) for (label, rival), size in zip(pairs, sizes, strict=True)]


def count_confusions(items: Iterable[EvidenceItem]) -> tuple[Confusion, ...]:
    """What is taken for what among scored rows, most frequent first, ties in the order of the rows."""
    wrong = Counter(
        (item.gold_label, item.predicted_label) for item in items if item.gold_label != item.predicted_label
    )
    return tuple(Confusion(gold, predicted, count) for (gold, predicted), count in wrong.most_common())


def shrunk_f1(row: ClassMetrics, mean_f1: float) -> float:
    """F1 of a class, pulled toward the mean of all; exactly the mean where there is no data."""
    return (row.f1 * row.support + mean_f1 * PRIOR_ROWS) / (row.support + PRIOR_ROWS)


def _sizes(num_samples: int, samples_per_request: int) -> list[int]:
    sizes = [samples_per_request] * (num_samples // samples_per_request)
    if num_samples % samples_per_request:
        sizes.append(num_samples % samples_per_request)
    return sizes


def _draw(report: ClassificationReport, random: random.Random) -> list[str]:
    weights = {row.label: max(1.0 - shrunk_f1(row, report.macro_f1), MIN_WEIGHT) for row in report.classes}
    return _weighted_order(weights, random)


def _draw_pairs(
    sources: Sequence[Sequence[Confusion]], report: ClassificationReport, random: random.Random
) -> list[Pair]:
    names = [row.label for row in report.classes]
    drawn: list[Pair] = []
    for confusions in sources:
        counts = _pair_counts(confusions, names)
        drawn += _weighted_order({pair: count for pair, count in counts.items() if not _has(drawn, pair)}, random)
    weakest = min(report.classes, key=lambda row: shrunk_f1(row, report.macro_f1)).label
    others = [(weakest, name) for name in names if name != weakest and not _has(drawn, (weakest, name))]
    return drawn + random.sample(others, len(others))


def _pair_counts(confusions: Sequence[Confusion], names: Sequence[str]) -> dict[Pair, int]:
    """Mistakes per pair, both directions summed; the class that is missed more often comes first in the pair."""
    counts = {(confusion.gold_label, confusion.predicted_label): confusion.count for confusion in confusions}
    pairs: dict[Pair, int] = {}
    for (gold, predicted), count in counts.items():
        back = counts.get((predicted, gold), 0)
        if (-count, names.index(gold)) < (-back, names.index(predicted)):
            pairs[gold, predicted] = count + back
    return pairs


def _has(pairs: Sequence[Pair], pair: Pair) -> bool:
    return pair in pairs or pair[::-1] in pairs


def _weighted_order(weights: Mapping[DrawnT, float], random: random.Random) -> list[DrawnT]:
    """Weighted sampling without replacement (Efraimidis and Spirakis 2006: the largest u^(1/w) win)."""
    keys = {drawn: random.random() ** (1.0 / weight) for drawn, weight in weights.items()}
    return sorted(keys, key=lambda drawn: -keys[drawn])
