"""What a teacher can look up."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pgkd_agent.metrics.report import format_report
from pgkd_agent.teacher.tools import MOST_ROWS, teacher_tools
from pgkd_agent.types import Confusion, Evidence, TeacherRequest, WrittenSample
from tests.unit.builders import TAXONOMY, item, report

REQUEST = TeacherRequest(
    kd_step=2,
    num_samples=4,
    taxonomy=TAXONOMY,
    task_description="",
    report=report(a=(0.5, 10), b=(0.9, 10), c=(0.0, 0)),
    evidence=Evidence(),
    few_shot=(),
    scored=(
        item("a", "a", 0.9, "sure of a"),
        item("a", "b", 0.8, "sure and wrong"),
        item("a", "b", 0.4, "wrong and unsure"),
        item("c", "b", 0.7, "far from a"),
        item("b", "a", 0.6, "taken for a"),
    ),
    confusions=(Confusion("a", "b", 3), Confusion("c", "b", 1)),
    written=(WrittenSample("first try", "a", 1, "b"), WrittenSample("second try", "a", 1, "a")),
)
TOOLS = {tool.name: tool for tool in teacher_tools(REQUEST)}


def call(name: str, **arguments: Any) -> str:
    return str(TOOLS[name].invoke(arguments))


def test_the_report_whole_worst_and_of_one_class() -> None:
    assert call("get_classification_report") == format_report(REQUEST.report)
    assert call("get_classification_report", worst=1).splitlines()[1].startswith("a ")
    assert call("get_classification_report", label="b").splitlines()[1].startswith("b ")


def test_confusions_of_all_and_of_one_class() -> None:
    assert call("get_confusions").splitlines() == ["3 of 'a' taken for 'b'", "1 of 'c' taken for 'b'"]
    assert call("get_confusions", label="c") == "1 of 'c' taken for 'b'"
    nothing = teacher_tools(replace(REQUEST, confusions=()))[1]
    assert nothing.invoke({}) == "no mistakes"


def test_evidence_of_a_class_most_confident_first_its_wrong_half_in_two() -> None:
    def shown(kind: str) -> list[str]:
        lines = call("get_evidence", label="a", kind=kind).splitlines()
        return [json.loads(line)["text"] for line in lines]

    assert shown("correct") == ["sure of a"]
    assert shown("hard_negatives") == ["sure and wrong", "taken for a"]
    assert shown("misclassified") == ["wrong and unsure"]
    first = json.loads(call("get_evidence", label="a", kind="hard_negatives").splitlines()[0])
    assert first == {"text": "sure and wrong", "label": "a", "predicted_label": "b", "confidence": 0.8}
    assert call("get_evidence", label="c", kind="correct") == "no such rows"


def test_long_texts_are_cut() -> None:
    long = replace(REQUEST, scored=(replace(REQUEST.scored[0], text="x" * 2001),))
    found = teacher_tools(long)[2].invoke({"label": long.scored[0].gold_label, "kind": "correct"})
    assert "x" * 1999 + "…" in found and "x" * 2000 not in found


def test_what_was_written_before_and_how_it_went() -> None:
    first, *rows = call("get_written_samples").splitlines()
    assert first == "the classifier gets 1 of 2 right"
    assert "first try" in rows[0] and '"predicted_label": "b"' in rows[0] and "second try" in rows[1]
    assert call("get_written_samples", label="b").splitlines() == [
        "the classifier gets 0 of 0 right",
        "nothing written yet",
    ]


def test_a_class_that_is_not_there_is_said_with_the_closest() -> None:
    for name in TOOLS:
        assert call(name, label="aa") == "There is no class 'aa'; the closest is 'a'."


def test_long_lists_are_cut_and_say_so() -> None:
    many = tuple(WrittenSample(f"text {n}", "a", 1, "a") for n in range(MOST_ROWS + 5))
    tool = teacher_tools(replace(REQUEST, written=many))[-1]
    assert str(tool.invoke({})).endswith("... and 5 more")
