"""What a KD step's request becomes for a prompt variant: one prompt, or one per planned class or pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pgkd_agent.config import EvidenceSettings, PGKDConfig, TeacherSettings
from pgkd_agent.loop.evidence import EvidenceLimits, evidence_of_class, evidence_of_pair
from pgkd_agent.metrics.report import format_report, report_without_rows
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.prompting.attributes import draw_attributes
from pgkd_agent.teacher.prompting.planning import PlannedRequest, count_confusions, plan_pairs, plan_requests
from pgkd_agent.teacher.prompting.templates import PromptTemplate, label_values
from pgkd_agent.teacher.prompting.tokens import shown
from pgkd_agent.types import Confusion, Evidence, EvidenceItem, Example, TeacherRequest, label_names


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """Values for one rendering of the template.

    Attributes:
        labels: What the answer may be labelled with.
        target: The class asked about; None for a prompt about several.
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

PER_CLASS = 4
"""Most shots, and most items of each pool, in a request about one class; twice as many in one about a pair."""

MAX_CONFUSIONS = 20
"""Most confusions listed in a prompt; a large taxonomy has thousands."""


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


@dataclass(frozen=True, slots=True)
class RequestPlanner:
    """Makes the requests of a KD step for a prompt variant.

    Attributes:
        seed: Of the run.
        asked: Classes that each KD step's prompts are about, where they are about one.
    """

    template: PromptTemplate
    teacher: TeacherSettings
    evidence: EvidenceSettings
    seed: int
    asked: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, template: PromptTemplate, config: PGKDConfig) -> RequestPlanner:
        """With the sections of a config."""
        return cls(template, config.teacher, config.evidence, config.seed)

    def plan(self, request: TeacherRequest) -> list[PromptRequest]:
        """Values for each prompt of a KD step; rows that the template does not show are left out.

        A template about one class that does not show the report has its classes drawn without it.
        """
        if not self.template.is_per_class:
            return [self._whole(request)]
        return [self._about(request, planned, index) for index, planned in enumerate(self._planned(request))]

    def _planned(self, request: TeacherRequest) -> list[PlannedRequest]:
        size = self.teacher.samples_per_request
        if not self.template.is_pairwise:
            random = rng(self.seed, request.kd_step, "plan")
            report = request.report if self._shows_report else report_without_rows(request.taxonomy)
            before = Counter(label for step, labels in self.asked.items() if step < request.kd_step for label in labels)
            planned = plan_requests(report, request.num_samples, size, random, before)
            self.asked[request.kd_step] = [one.label for one in planned]
            return planned
        random = rng(self.seed, request.kd_step, "pairs")
        sources = (request.confusions, count_confusions(request.scored))
        return plan_pairs(sources, request.report, request.num_samples, size, random)

    @property
    def _shows_report(self) -> bool:
        return "classification_report" in self.template.variables

    def _whole(self, request: TeacherRequest) -> PromptRequest:
        rows = self._rows(request.few_shot, request.evidence)
        lengths = [worst for worst in WORST_CLASSES if worst < len(request.taxonomy)]
        return PromptRequest(
            index=0,
            num_samples=request.num_samples,
            labels=label_names(request.taxonomy),
            target=None,
            values={
                **self._common(request, request.num_samples, 0),
                "classification_report": format_report(request.report),
                "confusions": _confusions(request.confusions[:MAX_CONFUSIONS]),
                **rows,
            },
            shown_texts=_texts(rows),
            shorter_reports=tuple(
                format_report(request.report, worst=worst) for worst in lengths if self._shows_report
            ),
        )

    def _about(self, request: TeacherRequest, planned: PlannedRequest, index: int) -> PromptRequest:
        """A prompt about one class, or about a pair: rows of both and what is taken for what between them."""
        settings = self.evidence
        random = rng(self.seed, request.kd_step, f"class/{index}")
        most = PER_CLASS * len(planned.labels)
        limits = EvidenceLimits(
            min(settings.correct, most), min(settings.misclassified, most), min(settings.hard_negatives, most)
        )
        shots: list[Example] = []
        for label in planned.labels:
            own = [row for row in request.train if row.label == label]
            shots += random.sample(own, min(PER_CLASS, len(own)))
        label, rival, asked = planned.label, planned.rival, {*planned.labels}
        if rival is None:
            evidence = evidence_of_class(request.scored, label, limits, random)
            confusions = [item for item in request.confusions if label in (item.gold_label, item.predicted_label)]
        else:
            evidence = evidence_of_pair(request.scored, (label, rival), limits, random)
            confusions = [item for item in request.confusions if {item.gold_label, item.predicted_label} == asked]
        rows = self._rows(shots, evidence)
        label_of = {label.name: label_values(label) for label in request.taxonomy}
        return PromptRequest(
            index=index,
            num_samples=planned.num_samples,
            labels=planned.labels,
            target=label if rival is None else None,
            values={
                **self._common(request, planned.num_samples, index),
                "target": label_of[label],
                **({} if rival is None else {"rival": label_of[rival]}),
                "classification_report": format_report(request.report, label=label, rival=rival),
                "confusions": _confusions(confusions[:MAX_CONFUSIONS]),
                **rows,
            },
            shown_texts=_texts(rows),
        )

    def _common(self, request: TeacherRequest, num_samples: int, index: int) -> dict[str, Any]:
        values: dict[str, Any] = {
            "taxonomy": [label_values(label) for label in request.taxonomy],
            "task_description": request.task_description,
            "num_samples": num_samples,
        }
        if "attributes" in self.template.variables:
            random = rng(self.seed, request.kd_step, f"attributes/{index}")
            values["attributes"] = draw_attributes(self.template.attributes, num_samples, random)
        return values

    def _rows(self, few_shot: Iterable[Example], evidence: Evidence) -> dict[str, list[dict[str, str]]]:
        """Few-shot rows and evidence as the template gets them, texts cut; pools that it does not show stay empty."""
        pools = {
            "few_shot": [{"text": shown(row.text), "label": row.label} for row in few_shot],
            "correct": [_evidence_row(item) for item in evidence.correct],
            "misclassified": [_evidence_row(item) for item in evidence.misclassified],
            "hard_negatives": [_evidence_row(item) for item in evidence.hard_negatives],
        }
        return {pool: rows if pool in self.template.variables else [] for pool, rows in pools.items()}


def _evidence_row(item: EvidenceItem) -> dict[str, str]:
    return {"text": shown(item.text), "label": item.gold_label, "predicted_label": item.predicted_label}


def _confusions(confusions: Iterable[Confusion]) -> list[dict[str, str | int]]:
    return [
        {"label": item.gold_label, "predicted_label": item.predicted_label, "count": item.count} for item in confusions
    ]


def _texts(rows: dict[str, list[dict[str, str]]]) -> frozenset[str]:
    return frozenset(row["text"] for pool in rows.values() for row in pool)
