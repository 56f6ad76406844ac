"""Which classes are taken for which: a heat map before and after, of the classes that are confused most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pgkd_agent.types import Evaluation

MOST_CLASSES = 20
"""Of a heat map; more cannot be read."""
LEVELS = 6
"""Shades of a heat map, from 1; 0 is a count of zero."""


@dataclass(frozen=True)
class Cell:
    """Rows of one class that are predicted as another, or as the class itself; `level` is the shade."""

    predicted: str
    count: int
    level: int
    is_right: bool


@dataclass(frozen=True)
class HeatMap:
    """A row for each class, with the cells of all of them, and how many of its rows are predicted as another class."""

    title: str
    model: str
    rows: Sequence[tuple[str, Sequence[Cell], int]]


def most_confused(before: Evaluation, after: Evaluation) -> list[str]:
    """The classes of the most frequent confusions, as many as can be read, in the order of the taxonomy."""
    labels = [row.label for row in after.report.classes]
    if len(labels) <= MOST_CLASSES:
        return labels
    counts: Counter[tuple[str, str]] = Counter()
    for pair in (*before.confusions, *after.confusions):
        counts[pair.gold_label, pair.predicted_label] += pair.count
    chosen: set[str] = set()
    for both, _ in counts.most_common():
        if len(chosen.union(both)) <= MOST_CLASSES:
            chosen.update(both)
    return [label for label in labels if label in chosen]


def heat_map(title: str, model: str, evaluation: Evaluation, labels: Sequence[str]) -> HeatMap:
    """
    Args:
        model: `before` or `after`, for the links.
        labels: The classes to show.
    """
    support = {row.label: row.support for row in evaluation.report.classes}
    counts = {(row.label, row.label): round(row.recall * row.support) for row in evaluation.report.classes}
    counts |= {(pair.gold_label, pair.predicted_label): pair.count for pair in evaluation.confusions}
    rows = []
    for gold in labels:
        cells = [
            Cell(label, count, _level(count, support[gold]), label == gold)
            for label, count in ((label, counts.get((gold, label), 0)) for label in labels)
        ]
        rows.append((gold, cells, support[gold] - counts[gold, gold]))
    return HeatMap(title, model, rows)


def _level(count: int, support: int) -> int:
    """A shade by the share of the class's rows."""
    return -(-count * LEVELS // support) if support else 0
