"""The outcome of a run as records: what `result.json` holds and the terminal shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pgkd_agent.config import PGKDConfig
from pgkd_agent.loop.algorithm import PGKDResult
from pgkd_agent.metrics.calibration import Calibration
from pgkd_agent.metrics.intervals import GainSupport, Interval, gain_support
from pgkd_agent.runs.verdict import caution, verdict
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.types import ClassificationReport, Evaluation, StepRecord, TokenUsage

HEADLINE = ("accuracy", "macro_f1", "weighted_f1")
NAMES = dict(zip(HEADLINE, ("accuracy", "macro F1", "weighted F1"), strict=True))
"""Of `HEADLINE`, for people."""


@dataclass(frozen=True, slots=True)
class ValidationLoss:
    """Mean cross-entropy in nats of the plain student and of the model that was kept."""

    plain: float
    best: float


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Plain student and returned model on the test rows; `gain` by metric, for `HEADLINE`, empty where they are one.

    The intervals are of a paired bootstrap over the rows.
    """

    before: Evaluation
    after: Evaluation
    gain: dict[str, Interval]


@dataclass(frozen=True, slots=True)
class RowPrediction:
    """What plain student and returned model make of one test row; confidences are p(predicted), not calibrated."""

    before: str
    before_confidence: float
    after: str
    after_confidence: float


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Samples over all steps; `rejected` by rule, `malformed` were no samples at all; `refused` counts replies."""

    asked: int
    parsed: int
    accepted: int
    malformed: int
    refused: int
    rejected: dict[str, int]


@dataclass(frozen=True, slots=True)
class TeacherUsage:
    """Calls and tokens, None where nobody reports them; of `estimated_calls`, which are not reported, estimated.

    Those of batch jobs are among them, at their price. `cost` is in the price table's currency, None where price or
    tokens are not known.
    """

    requests: int
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    currency: str
    estimated_calls: int = 0
    batch_input_tokens: int = 0
    batch_output_tokens: int = 0

    @property
    def usage(self) -> TokenUsage:
        reported = TokenUsage(self.input_tokens or 0, self.output_tokens or 0, self.estimated_calls)
        in_batch = {"batch_input_tokens": self.batch_input_tokens, "batch_output_tokens": self.batch_output_tokens}
        return replace(reported, **in_batch)


@dataclass(frozen=True, slots=True)
class TeacherShare:
    """What one teacher of a run brought.

    Attributes:
        steps: KD steps it wrote in.
        loss_change: Sum over its steps of the change of validation loss, in nats; below 0 is better.
    """

    teacher: str
    steps: int
    asked: int
    accepted: int
    rejected: dict[str, int]
    usage: TokenUsage
    cost: float | None
    loss_change: float


@dataclass(frozen=True, slots=True)
class LastFit:
    """The fit of the returned model after the loop (`student.refit`).

    Attributes:
        rows: That it was fitted on, the validation rows among them.
        seconds: With the plain student's, which is compared with it.
    """

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        best_step: 0 is the plain student.
        verdict: Which model was kept, and why; says where its loss alone is better.
        caution: Where the test rows disagree with that choice, or nearly all rows are predicted as one class; else
            empty.
        gain: Of the choice over the plain student, on validation rows that did not choose; None where
            that is the plain student.
        stopped_by: The cap that ended the run, in words; else empty.
        test: None without test rows.
        teachers: One per teacher, where there were several; else empty.
        estimate: Of calls, tokens and cost, made before the first call; None where there was none.
        seconds: Wall time by part: `teacher`, `student`, `evidence`, `last fit`, `rest`.
        last_fit: After which the model was tested and returned; other figures are of before. None where there was none.
        calibration: Of the returned model; the other figures are of its probabilities as they were.
    """

    best_step: int
    verdict: str
    caution: str
    stopped_early: bool
    stopped_by: str
    kd_steps: int
    validation_loss: ValidationLoss
    gain: GainSupport | None
    test: BeforeAfter | None
    samples: SampleCounts
    teacher: TeacherUsage
    teachers: tuple[TeacherShare, ...]
    estimate: Estimate | None
    seconds: dict[str, float]
    seed: int
    calibration: Calibration
    last_fit: LastFit | None


def summarize(
    config: PGKDConfig,
    result: PGKDResult,
    last_fit: LastFit | None,
    test: BeforeAfter | None,
    calibration: Calibration,
    seconds: float,
    teacher: str,
    prices: PriceTable,
    estimate: Estimate | None,
) -> RunResult:
    """Add up what a run came to.

    Args:
        seconds: That it took in all.
        teacher: Its name in the price table, for steps that do not name theirs.
    """
    steps = result.steps
    usage = sum((record.usage for record in steps), TokenUsage())
    on_test = (test.before, test.after) if test else None
    gain = gain_support(result.row_losses, result.best_step, config.seed) if result.best_step else None
    costs = [prices.cost(record.teacher or teacher, record.usage) for record in steps[1:]]
    return RunResult(
        best_step=result.best_step,
        verdict=verdict(steps, result.best_step, gain, on_test),
        caution=caution(steps[result.best_step].validation, on_test),
        stopped_early=result.stopped_early,
        stopped_by=result.stopped_by,
        kd_steps=len(steps) - 1,
        validation_loss=ValidationLoss(steps[0].validation.loss, steps[result.best_step].validation.loss),
        gain=gain,
        test=test,
        calibration=calibration,
        samples=SampleCounts(
            asked=sum(record.asked for record in steps),
            parsed=sum(record.parsed for record in steps),
            accepted=sum(record.accepted for record in steps),
            malformed=sum(record.malformed for record in steps),
            refused=sum(record.refused for record in steps),
            rejected=_rejected(steps),
        ),
        teacher=TeacherUsage(
            requests=sum(record.num_requests for record in steps),
            input_tokens=usage.input_tokens if usage.is_known else None,
            output_tokens=usage.output_tokens if usage.is_known else None,
            cost=_total(costs),
            currency=prices.currency,
            estimated_calls=usage.estimated_calls,
            batch_input_tokens=usage.batch_input_tokens,
            batch_output_tokens=usage.batch_output_tokens,
        ),
        teachers=shares(steps, prices),
        estimate=estimate,
        seconds=_seconds(steps, last_fit, seconds),
        last_fit=last_fit,
        seed=config.seed,
    )


def shares(steps: Sequence[StepRecord], prices: PriceTable) -> tuple[TeacherShare, ...]:
    """What each of several teachers brought, in the order of their first steps; nothing for a single one."""
    changes: dict[str, list[tuple[StepRecord, float]]] = {}
    for before, record in pairwise(steps):
        changes.setdefault(record.teacher, []).append((record, record.validation.loss - before.validation.loss))
    if len(changes) < 2:
        return ()
    return tuple(_share(teacher, pairs, prices) for teacher, pairs in changes.items())


def _share(teacher: str, pairs: Sequence[tuple[StepRecord, float]], prices: PriceTable) -> TeacherShare:
    records = [record for record, _ in pairs]
    usage = sum((record.usage for record in records), TokenUsage())
    return TeacherShare(
        teacher=teacher,
        steps=len(records),
        asked=sum(record.asked for record in records),
        accepted=sum(record.accepted for record in records),
        rejected=_rejected(records),
        usage=usage,
        cost=prices.cost(teacher, usage),
        loss_change=sum(change for _, change in pairs),
    )


def _rejected(records: Iterable[StepRecord]) -> dict[str, int]:
    return dict(sum((Counter(record.rejected) for record in records), Counter[str]()))


def _seconds(steps: Sequence[StepRecord], last_fit: LastFit | None, total: float) -> dict[str, float]:
    parts = {
        part: sum(getattr(record, f"{part}_seconds") for record in steps) for part in ("teacher", "student", "evidence")
    }
    parts["last fit"] = last_fit.seconds if last_fit else 0.0
    return {**parts, "rest": max(total - sum(parts.values()), 0.0)}


def _total(costs: Iterable[float | None]) -> float | None:
    """Unknown where one of them is."""
    known = list(costs)
    return None if None in known else sum(filter(None, known), 0.0)


def class_changes(before: ClassificationReport, after: ClassificationReport) -> list[tuple[str, float, float, int]]:
    """(label, F1 before, F1 after, support) of the classes with support whose F1 changed, best gain first."""
    pairs = [
        (old.label, old.f1, new.f1, old.support)
        for old, new in zip(before.classes, after.classes, strict=True)
        if old.has_data and old.f1 != new.f1
    ]
    return sorted(pairs, key=lambda row: row[1] - row[2])
