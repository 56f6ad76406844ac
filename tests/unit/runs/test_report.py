"""Coordinates and orders behind the pages."""

from __future__ import annotations

from typing import Any

import pytest

from pgkd_agent.runs.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, line_chart
from pgkd_agent.runs.report.page import _signed
from pgkd_agent.runs.report.story import Step, Story


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


def evaluation(f1: dict[str, tuple[float, int]], **confusions: int) -> dict[str, Any]:
    classes = [{"label": name, "f1": score, "support": support} for name, (score, support) in f1.items()]
    pairs = [{"gold_label": pair[0], "predicted_label": pair[1], "count": count} for pair, count in confusions.items()]
    report = {"classes": classes, "accuracy": 0.5, "macro_f1": 0.5, "weighted_f1": 0.5, "n_rows": 9}
    return {"loss": 1.0, "report": report, "confusions": pairs}


def story(before: dict[str, Any], after: dict[str, Any], result: dict[str, Any] | None = None) -> Story:
    steps = [
        Step({"kd_step": number, "is_best": True, "validation": validation}, (), (), ())
        for number, validation in enumerate((before, after))
    ]
    return Story("run", steps, result, "", {})


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
    moved = [(pair.gold_label, pair.predicted_label, pair.change) for pair in told.confusion_changes()]
    assert moved == [("a", "b", -4), ("b", "c", 2), ("a", "c", -1)]


def test_test_rows_are_shown_where_there_are_some() -> None:
    one, two = evaluation({"a": (0.1, 1)}), evaluation({"a": (0.2, 1)})
    test = {"before": evaluation({"a": (0.3, 1)}), "after": evaluation({"a": (0.4, 1)}), "gain": {}}
    assert story(one, two).class_changes()[0].after == 0.2
    assert story(one, two, {"test": None}).class_changes()[0].after == 0.2
    assert story(one, two, {"test": test}).class_changes()[0].after == 0.4
