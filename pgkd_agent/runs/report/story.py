"""What a run directory tells, gathered for a page; of a run that goes on or was killed, as far as it came."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pgkd_agent.errors import StorageError
from pgkd_agent.files import read_lines
from pgkd_agent.runs.directory import read_meta
from pgkd_agent.runs.summary import HEADLINE

NAMES = dict(zip(HEADLINE, ("accuracy", "macro F1", "weighted F1"), strict=True))
Row = dict[str, Any]
"""As stored: a line of a file of the run."""


@dataclass(frozen=True)
class ClassChange:
    """F1 of a class; None where it has no rows to be measured on."""

    label: str
    before: float | None
    after: float | None
    support: int

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class ConfusionChange:
    gold_label: str
    predicted_label: str
    before: int
    after: int

    @property
    def change(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class Headline:
    """A metric of plain student and returned model; `gain` has `low` and `high`, None where there is no interval."""

    name: str
    before: float
    after: float
    gain: Mapping[str, float] | None

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Step:
    """A line of steps.jsonl with the texts that belong to it."""

    record: Row
    accepted: Sequence[Row]
    rejected: Sequence[Row]
    evidence: Sequence[Row]

    @property
    def number(self) -> int:
        return int(self.record["kd_step"])

    @property
    def report(self) -> Row:
        return dict(self.record["validation"]["report"])


@dataclass(frozen=True)
class Story:
    """
    Attributes:
        steps: Those stored so far, the plain student first.
        result: As in result.json; None before the end.
        config: The text of config.yaml.
        meta: As in meta.json.
    """

    name: str
    steps: Sequence[Step]
    result: Row | None
    config: str
    meta: Row

    @property
    def best_step(self) -> int:
        """The model with the lowest validation loss so far."""
        return max((step.number for step in self.steps if step.record["is_best"]), default=0)

    @property
    def is_tested(self) -> bool:
        return self._test is not None

    @property
    def calibration(self) -> Row | None:
        """None before the end."""
        return None if self.result is None else self.result["calibration"]

    @property
    def _test(self) -> Row | None:
        return None if self.result is None else self.result["test"]

    @cached_property
    def before(self) -> Row | None:
        """The plain student's evaluation on the test rows, else on the validation rows; None before it is trained."""
        if self._test is not None:
            return dict(self._test["before"])
        return dict(self.steps[0].record["validation"]) if self.steps else None

    @cached_property
    def after(self) -> Row | None:
        """As `before`, of the best model."""
        if self._test is not None:
            return dict(self._test["after"])
        best = [step for step in self.steps if step.number == self.best_step]
        return dict(best[0].record["validation"]) if best else None

    def headlines(self) -> list[Headline]:
        if self.before is None or self.after is None:
            return []
        gains = self._test["gain"] if self._test else {}
        return [
            Headline(NAMES[name], self.before["report"][name], self.after["report"][name], gains.get(name))
            for name in HEADLINE
        ]

    def class_changes(self) -> list[ClassChange]:
        """All classes, those that changed most first."""
        if self.before is None or self.after is None:
            return []
        rows = [
            ClassChange(
                old["label"],
                old["f1"] if old["support"] else None,
                new["f1"] if new["support"] else None,
                old["support"],
            )
            for old, new in zip(self.before["report"]["classes"], self.after["report"]["classes"], strict=True)
        ]
        return sorted(rows, key=lambda row: (row.change is None, -abs(row.change or 0.0), row.label))

    def confusion_changes(self) -> list[ConfusionChange]:
        """Pairs of classes that are confused more often, or less, than before; the largest change first."""
        if self.before is None or self.after is None:
            return []
        before, after = (
            {(item["gold_label"], item["predicted_label"]): item["count"] for item in evaluation["confusions"]}
            for evaluation in (self.before, self.after)
        )
        pairs = [
            ConfusionChange(*pair, before.get(pair, 0), after.get(pair, 0)) for pair in dict.fromkeys([*before, *after])
        ]
        return sorted((pair for pair in pairs if pair.change), key=lambda pair: (-abs(pair.change), pair.gold_label))

    def rejected_by_rule(self) -> list[tuple[str, int]]:
        return Counter(row["rule"] for step in self.steps for row in step.rejected).most_common()


def read_story(run: Path) -> Story:
    """
    Raises:
        StorageError: See `read_meta`; or another file is damaged.
    """
    meta = read_meta(run)
    try:
        texts = [_by_step(run / f"{name}.jsonl") for name in ("history", "rejected", "evidence")]
        steps = [
            Step(record, *(rows.get(record["kd_step"], ()) for rows in texts))
            for record in read_lines(run / "steps.jsonl")
        ]
        result = run / "result.json"
        return Story(
            name=run.resolve().name,
            steps=steps,
            result=json.loads(result.read_text(encoding="utf-8")) if result.is_file() else None,
            config=(run / "config.yaml").read_text(encoding="utf-8"),
            meta=meta,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"run directory {run} is damaged: {type(error).__name__}: {error}") from error


def _by_step(file: Path) -> dict[int, list[Row]]:
    """Without step 0, whose rows are the real ones."""
    rows: dict[int, list[Row]] = {}
    for row in read_lines(file):
        if row["kd_step"]:
            rows.setdefault(row["kd_step"], []).append(row)
    return rows
