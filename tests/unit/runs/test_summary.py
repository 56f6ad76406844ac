from __future__ import annotations

from dataclasses import replace

from pgkd_agent.runs.summary import class_changes
from tests.unit.builders import report


def test_changes_per_class_leave_out_classes_without_rows() -> None:
    before = report(a=(0.5, 10), b=(0.9, 10), c=(0.0, 0), d=(0.3, 5))
    after = report(a=(0.4, 10), b=(0.95, 10), c=(0.7, 0), d=(0.3, 5))
    assert [row[0] for row in class_changes(before, after)] == ["b", "a"]
    assert class_changes(before, replace(before)) == []
