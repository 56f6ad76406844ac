"""The outcome of a run as records: what `result.json` holds and the terminal shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pgkd_agent.algorithm import PGKDResult
from pgkd_agent.config import PGKDConfig
from pgkd_agent.prices import PriceTable
from pgkd_agent.types import ClassificationReport, Evaluation, StepRecord, TokenUsage

HEADLINE = ("accuracy", "macro_f1", "weighted_f1")


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """Mean cross-entropy in nats of the plain student and of the model that was kept."""

    plain: float
    best: float


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Plain student and returned model on the test rows."""

    before: Evaluation
    after: Evaluation


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples over all steps; `rejected` by rule, `malformed` were no samples at all."""

    asked: int
    parsed: int
    accepted: int
    malformed: int
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class TeacherUsage:
    """Calls and tokens; `cost` in the price table's currency, None where the price is not known."""

    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    currency: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        best_step: 0 is the plain student.
        verdict: Which model was kept, and why.
        caution: Where the test rows disagree with that choice; else empty.
        test: None without test rows.
        seconds: Wall time by part.
    """

    best_step: int
    verdict: str
    caution: str
    stopped_early: bool
    kd_steps: int
    validation_loss: ValidationLoss
    test: BeforeAfter | None
    samples: SampleCounts
    teacher: TeacherUsage
    seconds: dict[str, float]
    seed: int


def summarize(
    config: PGKDConfig,
    result: PGKDResult,
    before: Evaluation | None,
    after: Evaluation | None,
    seconds: dict[str, float],
    teacher: str,
    prices: PriceTable,
) -> RunResult:
    """
    Args:
        teacher: Its name in the price table.
    """
    steps = result.steps
    usage = sum((record.usage for record in steps), TokenUsage())
    return RunResult(
        best_step=result.best_step,
        verdict=verdict(steps, result.best_step),
        caution=caution(before, after),
        stopped_early=result.stopped_early,
        kd_steps=len(steps) - 1,
        validation_loss=ValidationLoss(steps[0].validation.loss, steps[result.best_step].validation.loss),
        test=None if before is None or after is None else BeforeAfter(before, after),
        samples=SampleCounts(
            asked=sum(record.asked for record in steps),
            parsed=sum(record.parsed for record in steps),
            accepted=sum(record.accepted for record in steps),
            malformed=sum(record.malformed for record in steps),
            rejected=dict(sum((Counter(record.rejected) for record in steps), Counter[str]())),
        ),
        teacher=TeacherUsage(
            requests=sum(record.num_requests for record in steps),
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=prices.cost(teacher, usage),
            currency=prices.currency,
        ),
        seconds=seconds,
        seed=config.seed,
    )


def verdict(steps: Iterable[StepRecord], best_step: int) -> str:
    """One sentence on which model was kept and why."""
    records = list(steps)
    plain, best = records[0].validation.loss, records[best_step].validation.loss
    if len(records) == 1:
        return f"the plain student, validation loss {plain:.4f}"
    if best_step > 0:
        return f"kept the model of KD step {best_step}: validation loss {best:.4f}, plain student {plain:.4f}"
    lowest = min(record.validation.loss for record in records[1:])
    accepted = sum(record.accepted for record in records)
    if accepted == 0:
        return "kept the plain student (model 0): not one sample of the teacher passed the guardrails"
    return (
        f"kept the plain student (model 0): with {accepted} samples of the teacher the validation loss never "
        f"fell below its {plain:.4f} (lowest {lowest:.4f}); this teacher did not help"
    )


def caution(before: Evaluation | None, after: Evaluation | None) -> str:
    """A sentence where the test rows disagree with the choice by validation loss, else nothing."""
    if before is None or after is None or after.loss <= before.loss:
        return ""
    return (
        f"but on the test rows it is worse: loss {after.loss:.4f}, plain student {before.loss:.4f}; the gain on the "
        "validation rows does not carry over: take a stronger teacher, or more validation rows"
    )


def class_changes(before: ClassificationReport, after: ClassificationReport) -> list[tuple[str, float, float, int]]:
    """(label, F1 before, F1 after, support) of the classes with support whose F1 changed, best gain first."""
    pairs = [
        (old.label, old.f1, new.f1, old.support)
        for old, new in zip(before.classes, after.classes, strict=True)
        if old.has_data and old.f1 != new.f1
    ]
    return sorted(pairs, key=lambda row: row[1] - row[2])
