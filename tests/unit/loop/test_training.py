"""How often each row is in a fit, over a student that only notes what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.training import fit_history
from pgkd_agent.types import Example, FitResult

REAL = (Example("one", "a"), Example("two", "b"))
WRITTEN = (HistoryRow("three", "a", kd_step=1),)


class Notes:
    def __init__(self) -> None:
        self.fits: list[list[str]] = []

    def fit(self, rows: Sequence[Example], _validation: Sequence[Example], _kd_step: int) -> FitResult:
        self.fits.append([row.text for row in rows])
        return FitResult(2, 1, np.full((len(rows), 2), 0.5), gradient_steps=10 * len(rows))


def fits(written: Sequence[HistoryRow] = WRITTEN, balance: float = 0.0) -> tuple[Notes, FitResult]:
    student = Notes()
    result = fit_history(student, History.of(REAL).extended(written), (), 1, balance)  # type: ignore[arg-type]
    return student, result


def test_real_and_written_rows_are_trained_on_together() -> None:
    student, result = fits()
    assert student.fits == [["one", "two", "three"]]
    assert (len(result.dynamics), result.gradient_steps, result.best_epoch) == (3, 30, 1)


def test_rare_classes_come_again_until_they_have_their_share_of_the_mean() -> None:
    rows = [HistoryRow(f"{label}{number}", label, 1) for label, many in (("a", 6), ("b", 2)) for number in range(many)]

    def seen(balance: float) -> list[str]:
        student, result = fits(rows, balance)
        assert len(result.dynamics) == len(REAL) + len(rows)  # of each row once, for evidence
        (texts,) = student.fits
        return texts[len(REAL) + len(rows) :]

    assert seen(0) == seen(0.5) == []
    assert seen(1) == ["two", "b0"]  # 10 rows of two classes
    assert seen(1.4) == ["two", "b0", "b1", "two"]
    assert seen(2)[:3] == ["one", "a0", "a1"] and len(seen(2)) == 10
