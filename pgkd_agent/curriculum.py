"""In what order, and with what weight, a fit takes real rows and those that a teacher wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pgkd_agent.config import StudentSettings
from pgkd_agent.history import History, HistoryRow
from pgkd_agent.protocols import Student
from pgkd_agent.types import Example, FitResult


def fit_history(
    student: Student, history: History, validation: Sequence[Example], kd_step: int, settings: StudentSettings
) -> FitResult:
    """Fit to all rows, and before or after that to a part of them, as `settings.order` says.

    Each part goes on from the last one's weights, which remain where it does not lower the validation loss.

    Returns:
        The fit to all rows, with the epochs and gradient steps of both.
    """
    whole: FitResult | None = None
    epochs = steps = 0
    for number, rows in enumerate(_parts(history, settings.order)):
        weights = None if settings.synthetic_weight == 1 else [_weight(row, settings) for row in rows]
        result = student.fit(
            [Example(row.text, row.label) for row in rows], validation, kd_step, weights, goes_on=number > 0
        )
        epochs, steps = epochs + result.epochs, steps + result.gradient_steps
        if len(rows) == len(history):
            whole = result
    assert whole is not None  # one part is all of it
    return replace(whole, epochs=epochs, gradient_steps=steps)


def _parts(history: History, order: str) -> list[Sequence[HistoryRow]]:
    real = [row for row in history.rows if row.is_real]
    written = [row for row in history.rows if not row.is_real]
    if not written or not real or order == "mixed":
        return [history.rows]
    return [written, history.rows] if order == "synthetic_first" else [history.rows, real]


def _weight(row: HistoryRow, settings: StudentSettings) -> float:
    return 1.0 if row.is_real else settings.synthetic_weight
