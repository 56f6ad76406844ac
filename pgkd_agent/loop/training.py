"""How often a fit takes each row of a history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice

from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.protocols import Student
from pgkd_agent.types import Example, FitResult


def fit_history(
    student: Student, history: History, validation: Sequence[Example], kd_step: int, balance: float
) -> FitResult:
    """Fit to all rows together, real and written ones, and again to those of rare classes.

    Args:
        balance: See `StudentSettings`.
    Returns:
        The dynamics are those of the history's rows, in its order.
    """
    result = student.fit([*history.rows, *rows_again(history.rows, balance)], validation, kd_step)
    return replace(result, dynamics=result.dynamics[: len(history)])


def rows_again(rows: Sequence[HistoryRow], balance: float) -> list[HistoryRow]:
    """Rows of the classes that have fewer than `balance` times the mean, each class's in turns."""
    by_class: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in rows:
        by_class[row.label].append(row)
    wanted = round(balance * len(rows) / len(by_class))
    return [row for own in by_class.values() for row in islice(cycle(own), max(0, wanted - len(own)))]
