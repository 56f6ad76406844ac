"""Order and weights of real and written rows in a fit, over a student that only notes what it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pgkd_agent.config import build_config
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.training import fit_history
from pgkd_agent.types import Example, FitResult

REAL = (Example("one", "a"), Example("two", "b"))
WRITTEN = (HistoryRow("three", "a", kd_step=1),)


class Notes:
    def __init__(self) -> None:
        self.fits: list[tuple[list[str], Sequence[float] | None, bool]] = []
        self.best_epochs: list[int] = []

    def fit(
        self,
        rows: Sequence[Example],
        _validation: Sequence[Example],
        _kd_step: int,
        weights: Sequence[float] | None = None,
        *,
        goes_on: bool = False,
    ) -> FitResult:
        self.fits.append(([row.text for row in rows], weights, goes_on))
        best_epoch = self.best_epochs.pop(0) if self.best_epochs else 1
        return FitResult(2, best_epoch, np.full((len(rows), 2), 0.5), gradient_steps=10 * len(rows))


def fits(written: Sequence[HistoryRow] = WRITTEN, **settings: object) -> tuple[Notes, FitResult]:
    student, config = Notes(), build_config(flags={f"student.{n}": v for n, v in {"balance": 0, **settings}.items()})
    result = fit_history(student, History.of(REAL).extended(written), (), 1, config.student)  # type: ignore[arg-type]
    return student, result


ALL = ["one", "two", "three"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("mixed", [(ALL, None, False)]),
        ("synthetic_first", [(["three"], None, False), (ALL, None, True)]),
        ("real_last", [(ALL, None, False), (["one", "two"], None, True)]),
    ],
)
def test_the_parts_come_in_order_and_each_goes_on_from_the_last(order: str, expected: object) -> None:
    student, result = fits(order=order)
    assert student.fits == expected
    assert len(result.dynamics) == len(ALL)  # evidence is about all rows, whichever part came last
    assert result.epochs == 2 * len(student.fits)
    assert result.gradient_steps == sum(10 * len(rows) for rows, _, _ in student.fits)


@pytest.mark.parametrize("order", ["mixed", "synthetic_first", "real_last"])
def test_without_written_rows_there_is_one_part(order: str) -> None:
    student, _ = fits(written=(), order=order)
    assert student.fits == [(["one", "two"], None, False)]


def test_written_rows_weigh_what_the_settings_say() -> None:
    student, _ = fits(order="real_last", synthetic_weight=0.25)
    together, real = (weights for _, weights, _ in student.fits)
    assert together == pytest.approx([4 / 3, 4 / 3, 1 / 3])  # a mean of 1: steps are as long as without weights
    assert real is None


def test_rare_classes_come_again_until_they_have_their_share_of_the_mean() -> None:
    rows = [HistoryRow(f"{label}{number}", label, 1) for label, many in (("a", 6), ("b", 2)) for number in range(many)]

    def seen(balance: float) -> list[str]:
        student, result = fits(rows, balance=balance)
        assert len(result.dynamics) == len(REAL) + len(rows)  # of each row once, for evidence
        ((texts, weights, _),) = student.fits
        assert weights is None
        return texts[len(REAL) + len(rows) :]

    assert seen(0) == seen(0.5) == []
    assert seen(1) == ["two", "b0"]  # 10 rows of two classes
    assert seen(1.4) == ["two", "b0", "b1", "two"]
    assert seen(2)[:3] == ["one", "a0", "a1"] and len(seen(2)) == 10
    together, _ = fits(rows, balance=1, synthetic_weight=0.5)
    assert together.fits[0][1] == pytest.approx([1.6] * 2 + [0.8] * 8 + [1.6, 0.8])


@pytest.mark.parametrize(("best", "expected"), [([2, 1], 3), ([2, 0], 2)])
def test_the_best_epoch_counts_over_both_parts(best: list[int], expected: int) -> None:
    student, config = Notes(), build_config(flags={"student.order": "real_last"})
    student.best_epochs = list(best)
    result = fit_history(student, History.of(REAL).extended(WRITTEN), (), 1, config.student)  # type: ignore[arg-type]
    assert result.best_epoch == expected
