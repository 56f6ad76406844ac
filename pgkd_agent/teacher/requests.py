"""What a KD step's request becomes for a prompt variant: one prompt, or one per planned class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.evidence import EvidenceLimits, evidence_of_class
from pgkd_agent.metrics import format_report
from pgkd_agent.planning import PlannedRequest, plan_requests
from pgkd_agent.prompts import PromptTemplate
from pgkd_agent.seeding import rng
from pgkd_agent.text import shorten
from pgkd_agent.types import Evidence, EvidenceItem, Example, Label, TeacherRequest, label_names


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """Values for one rendering of the template.

    Attributes:
        labels: What the answer may be labelled with.
        target: The class asked about; None for a prompt over all classes.
        shown_texts: Texts of rows in `values`.
        shorter_reports: What may stand in for the report where the prompt is too long, longest first.
    """

    index: int
    num_samples: int
    labels: tuple[str, ...]
    target: str | None
    values: dict[str, Any]
    shown_texts: frozenset[str]
    shorter_reports: tuple[str, ...] = ()

    def of_size(self, num_samples: int) -> PromptRequest:
        """The same request for another number of samples."""
        return replace(self, num_samples=num_samples, values={**self.values, "num_samples": num_samples})


SHRINKING_ORDER = ("few_shot", "correct", "misclassified", "hard_negatives")
"""Pools in the order in which rows are left out of a prompt that is too long: the student's mistakes go last."""

WORST_CLASSES = (20, 5)
"""Classes left in the shorter reports."""


def shrunk(request: PromptRequest) -> tuple[PromptRequest, str] | None:
    """Leave out half of one pool, the largest, earlier ones first among equals; then shorten the report.

    Returns:
        The smaller request and what was left out of it; None where nothing more can go.
    """
    values = request.values
    pool = max(SHRINKING_ORDER, key=lambda name: len(values[name]))
    rows = values[pool]
    if rows:
        kept = rows[: len(rows) // 2]
        dropped = f"{len(rows) - len(kept)} of {len(rows)} rows of {pool}"
        return replace(request, values={**values, pool: kept}), dropped
    if request.shorter_reports:
        shorter, *rest = request.shorter_reports
        changed = {**values, "classification_report": shorter}
        return replace(request, values=changed, shorter_reports=tuple(rest)), "all but the worst classes of the report"
    return None


def plan_prompt_requests(request: TeacherRequest, template: PromptTemplate, config: PGKDConfig) -> list[PromptRequest]:
    if not template.is_per_class:
        return [_whole(request, config.teacher.max_text_chars)]
    planned = plan_requests(
        request.report,
        request.num_samples,
        config.teacher.samples_per_request,
        rng(config.seed, request.kd_step, "plan"),
    )
    return [_about_class(request, plan, index, config) for index, plan in enumerate(planned)]


def _whole(request: TeacherRequest, max_chars: int) -> PromptRequest:
    rows = _rows(request.few_shot, request.evidence, max_chars)
    return PromptRequest(
        index=0,
        num_samples=request.num_samples,
        labels=label_names(request.taxonomy),
        target=None,
        values={
            **_common(request, request.num_samples),
            "classification_report": format_report(request.report),
            **rows,
        },
        shown_texts=_texts(rows),
        shorter_reports=tuple(
            format_report(request.report, worst=worst) for worst in WORST_CLASSES if worst < len(request.taxonomy)
        ),
    )


def _about_class(request: TeacherRequest, plan: PlannedRequest, index: int, config: PGKDConfig) -> PromptRequest:
    settings = config.evidence
    random = rng(config.seed, request.kd_step, f"class/{index}")
    own = [row for row in request.train if row.label == plan.label]
    shots = random.sample(own, min(settings.per_class, len(own)))
    limits = EvidenceLimits(
        min(settings.correct, settings.per_class),
        min(settings.misclassified, settings.per_class),
        min(settings.hard_negatives, settings.per_class),
    )
    evidence = evidence_of_class(request.scored, plan.label, limits, random)
    rows = _rows(shots, evidence, config.teacher.max_text_chars)
    target = next(label for label in request.taxonomy if label.name == plan.label)
    return PromptRequest(
        index=index,
        num_samples=plan.num_samples,
        labels=(plan.label,),
        target=plan.label,
        values={
            **_common(request, plan.num_samples),
            "target": _label(target),
            "classification_report": format_report(request.report, label=plan.label),
            **rows,
        },
        shown_texts=_texts(rows),
    )


def _common(request: TeacherRequest, num_samples: int) -> dict[str, Any]:
    return {
        "taxonomy": [_label(label) for label in request.taxonomy],
        "task_description": request.task_description,
        "num_samples": num_samples,
    }


def _rows(few_shot: Iterable[Example], evidence: Evidence, max_chars: int) -> dict[str, list[dict[str, str]]]:
    """Few-shot rows and evidence as the template gets them, texts cut at `max_chars`."""
    return {
        "few_shot": [{"text": shorten(row.text, max_chars), "label": row.label} for row in few_shot],
        "correct": [_evidence_row(item, max_chars) for item in evidence.correct],
        "misclassified": [_evidence_row(item, max_chars) for item in evidence.misclassified],
        "hard_negatives": [_evidence_row(item, max_chars) for item in evidence.hard_negatives],
    }


def _evidence_row(item: EvidenceItem, max_chars: int) -> dict[str, str]:
    text = shorten(item.text, max_chars)
    return {"text": text, "label": item.gold_label, "predicted_label": item.predicted_label}


def _label(label: Label) -> dict[str, str]:
    return {"name": label.name, "description": label.description}


def _texts(rows: dict[str, list[dict[str, str]]]) -> frozenset[str]:
    return frozenset(row["text"] for pool in rows.values() for row in pool)
