"""The outcome of a run as plain data: what `result.json` holds and the terminal shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pgkd_agent.algorithm import PGKDResult
from pgkd_agent.config import PGKDConfig
from pgkd_agent.types import ClassificationReport, Evaluation, StepRecord, TokenUsage

HEADLINE = ("accuracy", "macro_f1", "weighted_f1")


def summarize(
    config: PGKDConfig,
    result: PGKDResult,
    before: Evaluation | None,
    after: Evaluation | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    steps = result.steps
    rejected = sum((Counter(record.rejected) for record in steps), Counter[str]())
    usage = sum((record.usage for record in steps), TokenUsage())
    return {
        "best_step": result.best_step,
        "verdict": verdict(steps, result.best_step),
        "caution": caution(before, after),
        "stopped_early": result.stopped_early,
        "kd_steps": len(steps) - 1,
        "validation_loss": {
            "plain": steps[0].validation.loss,
            "best": steps[result.best_step].validation.loss,
        },
        "test": None if before is None or after is None else {"before": asdict(before), "after": asdict(after)},
        "samples": {
            "asked": sum(record.asked for record in steps),
            "parsed": sum(record.parsed for record in steps),
            "accepted": sum(record.accepted for record in steps),
            "malformed": sum(record.malformed for record in steps),
            "rejected": dict(rejected),
        },
        "teacher": {"requests": sum(record.num_requests for record in steps), **asdict(usage)},
        "seconds": seconds,
        "seed": config.seed,
    }


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
