"""Coordinates and orders behind the pages."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pgkd_agent.runs.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart
from pgkd_agent.runs.report.page import _signed
from pgkd_agent.runs.report.story import Step, Story
from pgkd_agent.runs.summary import BeforeAfter, RunResult
from pgkd_agent.types import Confusion, Evaluation, StepRecord
from tests.unit.builders import report


def test_a_chart_spans_its_box_and_marks_the_best_step() -> None:
    chart = line_chart("loss", [2.0, 1.0, 1.5], best=1)
    assert [point.x for point in chart.points] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    assert (chart.points[0].y, chart.points[1].y) == (TOP, HEIGHT - BOTTOM)  # the lowest loss is at the bottom
    assert [point.is_best for point in chart.points] == [False, True, False]
    assert [tick.text for tick in chart.y_ticks] == ["1.000", "1.500", "2.000"]


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 1.0], [0.5] * 100])
def test_a_flat_or_single_line_stays_in_the_box(values: list[float]) -> None:
    chart = line_chart("loss", values, best=0)
    assert all(TOP <= point.y <= HEIGHT - BOTTOM and LEFT <= point.x <= WIDTH - RIGHT for point in chart.points)
    assert len(chart.x_ticks) <= 12


def test_signs() -> None:
    assert [_signed(0.0), _signed(-0.0001), _signed(0.25, 2), _signed(-3, 0)] == ["+0.000", "+0.000", "+0.25", "-3"]


def evaluation(f1: dict[str, tuple[float, int]], **confusions: int) -> Evaluation:
    pairs = tuple(Confusion(pair[0], pair[1], count) for pair, count in confusions.items())
    return Evaluation(1.0, report(**f1), pairs)


def story(before: Evaluation, after: Evaluation, result: RunResult | None = None) -> Story:
    steps = [
        Step(StepRecord(number, validation, True, epochs=1, history_rows=9), (), (), ())
        for number, validation in enumerate((before, after))
    ]
    return Story("run", steps, result, "", {})


def result(test: BeforeAfter | None) -> RunResult:
    """Of a run that is about its test rows alone."""
    values: dict[str, Any] = {field.name: None for field in fields(RunResult)}
    return RunResult(**{**values, "test": test})


def test_classes_that_changed_most_come_first_and_those_without_rows_last() -> None:
    told = story(
        evaluation({"a": (0.5, 3), "b": (0.9, 3), "c": (0.0, 0)}),
        evaluation({"a": (0.6, 3), "b": (0.2, 3), "c": (0, 0)}),
    )
    rows = told.class_changes()
    assert [row.label for row in rows] == ["b", "a", "c"]
    assert rows[1].change == pytest.approx(0.1) and rows[2].change is None


def test_confusions_that_stayed_are_left_out() -> None:
    told = story(evaluation({}, ab=5, ba=2, ac=1), evaluation({}, ab=1, ba=2, bc=2))
    moved = [(pair.label, pair.taken_for, pair.change) for pair in told.confusion_changes()]
    assert moved == [("a", "b", -4), ("b", "c", 2), ("a", "c", -1)]


def test_test_rows_are_shown_where_there_are_some() -> None:
    one, two = evaluation({"a": (0.1, 1)}), evaluation({"a": (0.2, 1)})
    test = BeforeAfter(evaluation({"a": (0.3, 1)}), evaluation({"a": (0.4, 1)}), {})
    assert story(one, two).class_changes()[0].after == 0.2
    assert story(one, two, result(None)).class_changes()[0].after == 0.2
    assert story(one, two, result(test)).class_changes()[0].after == 0.4
