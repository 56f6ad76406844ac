"""Turn the validation report into a plan: which classes to ask samples for, and how many."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pgkd_agent.types import ClassificationReport, ClassMetrics

PRIOR_ROWS = 5.0
"""Validation rows that the mean F1 counts for: a class with 2 rows says little about itself."""

MIN_WEIGHT = 0.05
"""Keeps a class with F1 1.0 on a handful of rows in the draw."""


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    label: str
    num_samples: int


def plan_requests(
    report: ClassificationReport, num_samples: int, samples_per_request: int, random: random.Random
) -> list[PlannedRequest]:
    """Split `num_samples` into requests about one class each; weak classes come up more often.

    Classes are drawn without repetition, with probability proportional to 1 - F1, where F1 is shrunk
    toward the mean by support. Only when there are more requests than classes does a class come twice.
    """
    sizes = [samples_per_request] * (num_samples // samples_per_request)
    if num_samples % samples_per_request:
        sizes.append(num_samples % samples_per_request)
    labels: list[str] = []
    while len(labels) < len(sizes):
        labels += _draw(report, len(sizes) - len(labels), random)
    return [PlannedRequest(label, size) for label, size in zip(labels, sizes, strict=True)]


def shrunk_f1(row: ClassMetrics, mean_f1: float) -> float:
    """F1 of a class, pulled toward the mean of all; exactly the mean where there is no data."""
    return (row.f1 * row.support + mean_f1 * PRIOR_ROWS) / (row.support + PRIOR_ROWS)


def _draw(report: ClassificationReport, count: int, random: random.Random) -> list[str]:
    """Weighted sampling without replacement (Efraimidis and Spirakis 2006: the largest u^(1/w) win)."""
    weights = {row.label: max(1.0 - shrunk_f1(row, report.macro_f1), MIN_WEIGHT) for row in report.classes}
    keys = {label: random.random() ** (1.0 / weight) for label, weight in weights.items()}
    return sorted(keys, key=lambda label: -keys[label])[:count]
