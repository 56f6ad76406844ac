"""Small records for the unit tests."""

from __future__ import annotations

from pgkd_agent.data import Task
from pgkd_agent.types import (
    ClassificationReport,
    ClassMetrics,
    Evaluation,
    Evidence,
    EvidenceItem,
    Label,
    TeacherRequest,
)

TAXONOMY = (Label("a", "the first"), Label("b"), Label("c"))


def report(**f1_and_support: tuple[float, int]) -> ClassificationReport:
    """`report(a=(0.5, 10))`: F1 and support per class; precision and recall equal F1."""
    rows = tuple(ClassMetrics(name, f1, f1, f1, support) for name, (f1, support) in f1_and_support.items())
    supported = [row.f1 for row in rows if row.support]
    mean = sum(supported) / len(supported) if supported else 0.0
    return ClassificationReport(rows, mean, mean, mean, mean, sum(row.support for row in rows))


def evaluation(loss: float) -> Evaluation:
    return Evaluation(loss, report(a=(0.5, 10), b=(0.9, 10), c=(0.0, 0)))


def item(gold: str, predicted: str, confidence: float = 0.6, text: str = "") -> EvidenceItem:
    return EvidenceItem(text or f"{gold} as {predicted} {confidence}", gold, predicted, confidence)


def request_of(task: Task, kd_step: int) -> TeacherRequest:
    """Of a teacher that looks at the training rows alone."""
    rows = report(**{label.name: (0.5, 1) for label in task.taxonomy})
    return TeacherRequest(kd_step, 4, task.taxonomy, "", rows, Evidence(), (), train=task.train)
