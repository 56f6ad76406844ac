"""LangChain tools over the student."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from langchain_core.tools import BaseTool, tool

from pgkd_agent.metrics import format_report
from pgkd_agent.types import ClassificationReport


def classification_report_tool(get_report: Callable[[], ClassificationReport]) -> BaseTool:
    """The tool `get_classification_report`: aggregates over the validation rows, never their texts.

    Args:
        get_report: Returns the report of the student as it is now.
    """

    @tool
    def get_classification_report(worst: int | None = None, label: str | None = None) -> str:
        """Precision, recall, F1 and support of the classifier per class on the validation rows.

        Args:
            worst: Only this many classes, those with the lowest F1.
            label: Only this class.
        """
        report = get_report()
        names = [row.label for row in report.classes]
        if label is not None and label not in names:
            closest = difflib.get_close_matches(label, names, n=1, cutoff=0.0)[0]
            return f"There is no class {label!r}; the closest is {closest!r}."
        return format_report(report, worst=worst, label=label)

    return get_classification_report
