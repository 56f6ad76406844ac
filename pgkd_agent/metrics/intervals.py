"""What cells say together: means over seeds, and paired differences with an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95

NO_LABEL, NOT_ASKED = -1, -2
"""Instead of a predicted class id: wrong, and left out."""

Metric = Callable[[np.ndarray, np.ndarray, int], float]
"""Of gold and predicted class ids (`NO_LABEL` is wrong), and the number of classes."""


@dataclass(frozen=True)
class Spread:
    """`deviation` is that of the sample, None of a single value."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """Mean over seeds of what a method has over the baseline, and the bounds of its interval."""

    mean: float
    low: float
    high: float
    seeds: int


def accuracy(gold: np.ndarray, predicted: np.ndarray, _num_classes: int) -> float:
    return float((gold == predicted).mean())


def macro_f1(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """Over the classes with rows, as in the reports."""
    f1, support = _f1(gold, predicted, num_classes)
    return float(f1[support > 0].mean())


def weighted_f1(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    f1, support = _f1(gold, predicted, num_classes)
    return float(np.average(f1, weights=support))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "macro_f1": macro_f1, "weighted_f1": weighted_f1}


def spread(values: Sequence[float]) -> Spread:
    return Spread(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(
    metric: Metric,
    gold: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    num_classes: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Difference:
    """What one method has over another with the same seeds, on the same test rows.

    The interval is a percentile bootstrap over seeds and rows at once: each resample draws seeds, then rows that are
    the same for all of them. With three seeds it says little about other seeds.

    Args:
        gold: Class ids, shape (n_rows,).
        ours, theirs: Predicted ones, shape (n_seeds, n_rows).
    """

    def mean_difference(seeds: Sequence[int], rows: np.ndarray) -> float:
        return mean(
            metric(gold[rows], ours[one, rows], num_classes) - metric(gold[rows], theirs[one, rows], num_classes)
            for one in seeds
        )

    n_seeds, n_rows = ours.shape
    drawn = np.random.default_rng(seed)
    seeds = drawn.integers(n_seeds, size=(resamples, n_seeds)).tolist()
    resampled = [mean_difference(one, drawn.integers(n_rows, size=(n_rows,))) for one in seeds]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(mean_difference(range(n_seeds), np.arange(n_rows)), float(low), float(high), n_seeds)


def _f1(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """F1 and support of each class; 0 where a class is neither there nor predicted."""
    support = np.bincount(gold, minlength=num_classes)
    named = np.bincount(predicted[predicted >= 0], minlength=num_classes)
    right = np.bincount(gold[gold == predicted], minlength=num_classes)
    return 2 * right / np.maximum(support + named, 1), support
