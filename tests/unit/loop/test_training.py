"""Which rows a fit is given, over a student that only notes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pgkd_agent.config import build_config
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.training import fit_history
from pgkd_agent.types import Example, FitResult

REAL = (Example("one", "a"), Example("two", "b"))


class Notes:
    def __init__(self) -> None:
        self.fits: list[list[str]] = []

    def fit(self, rows: Sequence[Example], _validation: Sequence[Example], _kd_step: int) -> FitResult:
        self.fits.append([row.text for row in rows])
        return FitResult(2, 1, np.full((len(rows), 2), 0.5))


def fits(written: Sequence[HistoryRow], balance: float) -> tuple[list[list[str]], FitResult]:
    student, config = Notes(), build_config(flags={"student.balance": balance})
    result = fit_history(student, History.of(REAL).extended(written), (), 1, config.student)  # type: ignore[arg-type]
    return student.fits, result


def test_real_and_written_rows_are_trained_on_together() -> None:
    assert fits((HistoryRow("three", "a", kd_step=1),), 0)[0] == [["one", "two", "three"]]


def test_rare_classes_come_again_until_they_have_their_share_of_the_mean() -> None:
    rows = [HistoryRow(f"{label}{number}", label, 1) for label, many in (("a", 6), ("b", 2)) for number in range(many)]

    def seen(balance: float) -> list[str]:
        (texts,), result = fits(rows, balance)
        assert len(result.dynamics) == len(REAL) + len(rows)  # of each row once, for evidence
        return texts[len(REAL) + len(rows) :]

    assert seen(0) == seen(0.5) == []
    assert seen(1) == ["two", "b0"]  # 10 rows of two classes
    assert seen(1.4) == ["two", "b0", "b1", "two"]
    assert seen(2)[:3] == ["one", "a0", "a1"] and len(seen(2)) == 10
