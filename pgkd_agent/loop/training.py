"""In what order, how often and with what weight a fit takes real rows and those that a teacher wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from statistics import mean

from pgkd_agent.config import StudentSettings
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.protocols import Student
from pgkd_agent.types import Example, FitResult


def fit_history(
    student: Student, history: History, validation: Sequence[Example], kd_step: int, settings: StudentSettings
) -> FitResult:
    """Fit to all rows, and before or after that to a part of them, as `settings.order` says.

    Each part goes on from the last one's weights, which remain where it does not lower the validation loss.

    Returns:
        Epochs and gradient steps of both parts, the loss of the last, and the dynamics of the fit to all rows.
    """
    results: list[FitResult] = []
    dynamics = None
    for part in _parts(history, settings.order):
        rows = [*part, *rows_again(part, settings.balance)]
        examples = [Example(row.text, row.label) for row in rows]
        results.append(student.fit(examples, validation, kd_step, _weights(rows, settings), goes_on=bool(results)))
        if len(part) == len(history):
            dynamics = results[-1].dynamics[: len(part)]
    assert dynamics is not None  # one part is all of it
    first, last = results[0], results[-1]
    return replace(
        last,
        epochs=sum(result.epochs for result in results),
        gradient_steps=sum(result.gradient_steps for result in results),
        best_epoch=first.best_epoch if not last.best_epoch else last.best_epoch + (first.epochs if results[1:] else 0),
        dynamics=dynamics,
    )


def _parts(history: History, order: str) -> list[Sequence[HistoryRow]]:
    real = [row for row in history.rows if row.is_real]
    written = [row for row in history.rows if not row.is_real]
    if not written or not real or order == "mixed":
        return [history.rows]
    return [written, history.rows] if order == "synthetic_first" else [history.rows, real]


def rows_again(rows: Sequence[HistoryRow], balance: float) -> list[HistoryRow]:
    """Rows of the classes that have fewer than `balance` times the mean, each class's in turns."""
    by_class: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in rows:
        by_class[row.label].append(row)
    wanted = round(balance * len(rows) / len(by_class))
    return [row for own in by_class.values() for row in islice(cycle(own), max(0, wanted - len(own)))]


def _weights(rows: Sequence[HistoryRow], settings: StudentSettings) -> list[float] | None:
    """With a mean of 1, so that a step is as long as one without weights; None where all rows are alike."""
    weights = [1.0 if row.is_real else settings.synthetic_weight for row in rows]
    if len(set(weights)) == 1:
        return None
    average = mean(weights)
    return [weight / average for weight in weights]
