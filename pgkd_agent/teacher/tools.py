"""LangChain tools over the student as it is in a KD step: what a teacher may look up before it writes.

Aggregates of the validation rows, and texts of training rows; never a validation text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Literal

from langchain_core.tools import BaseTool, tool

from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.metrics.report import format_report
from pgkd_agent.teacher.prompting.tokens import shown
from pgkd_agent.types import (
    ClassificationReport,
    Confusion,
    EvidenceItem,
    Label,
    TeacherRequest,
    WrittenSample,
    label_names,
)

MOST_ROWS = 20
"""Rows in one answer of a tool."""

EvidenceKind = Literal["correct", "misclassified", "hard_negatives"]


def teacher_tools(request: TeacherRequest) -> list[BaseTool]:
    """All tools over what a request knows."""
    names = label_names(request.taxonomy)
    return [
        classification_report_tool(request.report),
        confusions_tool(request.confusions, names),
        evidence_tool(request.scored, names),
        written_samples_tool(request.written, names),
    ]


def classification_report_tool(report: ClassificationReport) -> BaseTool:
    @tool
    def get_classification_report(worst: int | None = None, label: str | None = None) -> str:
        """Precision, recall, F1 and support of the classifier per class on the validation rows.

        Args:
            worst: Only this many classes, those with the lowest F1.
            label: Only this class.
        """
        label, objection = _class(label, [row.label for row in report.classes])
        if objection:
            return objection
        return format_report(report, worst=worst, label=label)

    return get_classification_report


def confusions_tool(confusions: Sequence[Confusion], labels: Sequence[str]) -> BaseTool:
    @tool
    def get_confusions(label: str | None = None) -> str:
        """Which classes the classifier takes for which others on the validation rows, most frequent first.

        Args:
            label: Only pairs with this class.
        """
        label, objection = _class(label, labels)
        if objection:
            return objection
        pairs = [pair for pair in confusions if label in (None, pair.gold_label, pair.predicted_label)]
        lines = [f"{pair.count} of {pair.gold_label!r} taken for {pair.predicted_label!r}" for pair in pairs]
        return _listed(lines, "no mistakes")

    return get_confusions


def evidence_tool(scored: Sequence[EvidenceItem], labels: Sequence[str]) -> BaseTool:
    @tool
    def get_evidence(label: str, kind: EvidenceKind = "misclassified") -> str:
        """Training rows of a class, or taken for it, with what the classifier makes of them, most confident first.

        Args:
            label: The class.
            kind: Rows it gets right, rows it gets wrong, or hard negatives: those it is most confident and wrong about.
        """
        name, objection = _class(label, labels)
        if objection:
            return objection
        rows = [item for item in scored if name in (item.gold_label, item.predicted_label)]
        rows = [item for item in rows if (item.gold_label == item.predicted_label) == (kind == "correct")]
        rows.sort(key=lambda item: -item.confidence)
        if kind != "correct":  # the less confident half is what the paper calls misclassified
            half = (len(rows) + 1) // 2
            rows = rows[:half] if kind == "hard_negatives" else rows[half:] or rows
        lines = [
            _json(
                text=shown(item.text),
                label=item.gold_label,
                predicted_label=item.predicted_label,
                confidence=round(item.confidence, 2),
            )
            for item in rows
        ]
        return _listed(lines, "no such rows")

    return get_evidence


def written_samples_tool(written: Sequence[WrittenSample], labels: Sequence[str]) -> BaseTool:
    @tool
    def get_written_samples(label: str | None = None) -> str:
        """Samples you wrote in earlier steps, and whether the classifier gets them right after training on them.

        Args:
            label: Only samples of this class.
        """
        label, objection = _class(label, labels)
        if objection:
            return objection
        rows = [sample for sample in written if label in (None, sample.label)]
        right = sum(sample.is_right for sample in rows)
        lines = [
            _json(
                text=shown(sample.text),
                label=sample.label,
                predicted_label=sample.predicted_label,
                step=sample.kd_step,
            )
            for sample in sorted(rows, key=lambda sample: (sample.is_right, -sample.kd_step))
        ]
        return f"the classifier gets {right} of {len(rows)} right\n" + _listed(lines, "nothing written yet")

    return get_written_samples


def _class(written: str | None, labels: Sequence[str]) -> tuple[str | None, str]:
    """The class that a teacher means, and what to tell it where there is none of that name; else empty."""
    name = None if written is None else LabelResolver([Label(label) for label in labels])(written)
    if written is None or name:
        return name, ""
    closest = difflib.get_close_matches(written, labels, n=1, cutoff=0.0)[0]
    return None, f"There is no class {written!r}; the closest is {closest!r}."


def _json(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _listed(lines: Sequence[str], nothing: str) -> str:
    if not lines:
        return nothing
    more = f"\n... and {len(lines) - MOST_ROWS} more" if len(lines) > MOST_ROWS else ""
    return "\n".join(lines[:MOST_ROWS]) + more
