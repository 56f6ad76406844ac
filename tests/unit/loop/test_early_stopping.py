from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.early_stopping import EarlyStopping


def reference(losses: list[float], patience: int) -> tuple[int, int]:
    """(index of the best, number of losses looked at), from the definition instead of a counter."""
    for seen in range(1, len(losses) + 1):
        best = losses.index(min(losses[:seen]))
        if seen - 1 - best > patience:
            return best, seen
    return losses.index(min(losses)), len(losses)


@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=20), st.integers(0, 4))
@settings(max_examples=150)
def test_stops_where_the_definition_says(losses: list[float], patience: int) -> None:
    stopping = EarlyStopping(patience)
    seen = 0
    for index, loss in enumerate(losses):
        seen += 1
        stopping.update(index, loss)
        if stopping.should_stop:
            break
    assert (stopping.best_index, seen) == reference(losses, patience)


def test_a_tie_is_no_improvement() -> None:
    stopping = EarlyStopping(0)
    assert stopping.update(0, 1.0) and not stopping.update(1, 1.0)
    assert stopping.best_index == 0 and stopping.should_stop


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_an_error(loss: float) -> None:
    with pytest.raises(StudentDivergedError, match="lower learning rate"):
        EarlyStopping(3).update(0, loss)
