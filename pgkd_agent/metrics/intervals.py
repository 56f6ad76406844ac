"""Means over seeds, and differences with an interval: a percentile bootstrap over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np

from pgkd_agent.metrics.report import class_scores

RESAMPLES, RESAMPLES_OF_CHOICE = 2000, 1000
LEVEL = 0.95
FEWEST_ROWS = 20
"""With fewer a bootstrap of a choice knows too little of the spread to be trusted."""

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


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean, and its standard error; infinite where a single value says nothing of it."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Measured:
        return cls(mean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf)


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference, and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference(Interval):
    """Mean over seeds of what a method has over the baseline."""

    seeds: int


@dataclass(frozen=True, slots=True)
class GainSupport(Interval):
    """What choosing the model by validation loss gains over the plain student, on rows that did not choose.

    The difference is the fall of the mean log loss in nats, above 0 where the choice is better; `is_supported` says
    that the interval is above 0, and of enough rows.
    """

    is_supported: bool


def accuracy(gold: np.ndarray, predicted: np.ndarray, _num_classes: int) -> float:
    return float((gold == predicted).mean())


def macro_f1(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """Over the classes with rows, as in the reports."""
    _, _, f1, support = class_scores(gold, predicted, num_classes)
    return float(f1[support > 0].mean())


def weighted_f1(gold: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    _, _, f1, support = class_scores(gold, predicted, num_classes)
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
    rng = np.random.default_rng(0)
    seeds = rng.integers(n_seeds, size=(resamples, n_seeds)).tolist()
    resampled = map(mean_difference, seeds, _drawn(n_rows, resamples, rng))
    return Difference(mean_difference(range(n_seeds), np.arange(n_rows)), *_bounds(list(resampled)), n_seeds)


def gain_support(losses: Sequence[Sequence[float]] | np.ndarray, best: int, seed: int) -> GainSupport:
    """Whether a gain on the validation rows is more than luck, said without further rows.

    The lowest of several losses on the same rows flatters its model. So each resample chooses anew, on rows drawn
    with replacement, and the model it chose is held against the plain student on the rows that were not drawn: the
    mean is that of these gains (the bias correction of Tsamardinos et al. 2018). The interval has the width of the
    paired bootstrap of the model that was kept. Which epoch each fit ended with was chosen on all of the rows, for the
    plain student as for the others.

    Args:
        losses: Of each validation row in nats, by each model; the plain student first. Shape (n_models, n_rows).
        best: The model that was kept.
        seed: Of the resamples.
    """
    table = np.asarray(losses, dtype=float)
    gains, n_rows = table[0] - table, table.shape[1]
    unseen, kept = [], []
    for rows in _drawn(n_rows, RESAMPLES_OF_CHOICE, np.random.default_rng(seed)):
        times = np.bincount(rows, minlength=n_rows)
        left = times == 0
        chosen = (gains @ times).argmax()
        if left.any():  # of very few rows sometimes none is
            unseen.append(gains[chosen, left].mean())
        kept.append(gains[best] @ times / n_rows)
    if not unseen:
        return GainSupport(0.0, 0.0, 0.0, False)
    mean_gain = float(np.mean(unseen))
    low, high = (float(mean_gain + bound - np.mean(kept)) for bound in _bounds(kept))
    return GainSupport(mean_gain, low, high, low > 0 and n_rows >= FEWEST_ROWS)


def _drawn(n_rows: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The row numbers of each resample, as many as there are rows."""
    return (rng.integers(n_rows, size=n_rows) for _ in range(resamples))


def _bounds(resampled: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
