"""The history only grows, and knows where its rows came from."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.loop.history import History, HistoryRow, texts_of
from pgkd_agent.types import Example

ROWS = st.builds(HistoryRow, st.text(max_size=3), st.sampled_from("ab"), st.integers(1, 3), st.integers(0, 3))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(ROWS, max_size=4), max_size=4))
def test_every_extension_keeps_all_earlier_rows_in_front(batches: list[list[HistoryRow]]) -> None:
    history = History.of([Example("real", "a")])
    for batch in batches:
        longer = history.extended(iter(batch))
        assert longer.rows[: len(history)] == history.rows
        assert longer.rows[len(history) :] == tuple(batch)
        history = longer


def test_extending_leaves_the_history_before_as_it_was() -> None:
    first = History.of([Example("real", "a")])
    first.extended([HistoryRow("new", "b", 1)])
    assert len(first) == 1
    with pytest.raises(FrozenInstanceError, match="rows"):
        first.rows = ()  # type: ignore[misc]


def test_rows_know_their_step_and_request() -> None:
    history = History.of([Example("real", "a")]).extended([HistoryRow("new", "b", 2, 3), HistoryRow("newer", "b", 4)])
    assert [(row.is_real, row.kd_step, row.request_index) for row in history.rows] == [
        (True, 0, 0),
        (False, 2, 3),
        (False, 4, 0),
    ]
    assert texts_of(history.rows) == ["real", "new", "newer"]


def test_equal_texts_are_kept_twice() -> None:
    assert len(History.of([Example("same", "a"), Example("same", "a")])) == 2
