"""What a run directory tells, gathered for a page; of a run that goes on or was killed, as far as it came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pgkd_agent.errors import StorageError
from pgkd_agent.files import read_lines
from pgkd_agent.metrics.intervals import Interval
from pgkd_agent.runs.stored import check_files, read_meta
from pgkd_agent.runs.summary import NAMES, RunResult
from pgkd_agent.types import ClassMetrics, Evaluation, StepRecord

Row = Mapping[str, Any]
"""As stored: a line of a file of the run."""

_RECORD, _RESULT = TypeAdapter(StepRecord), TypeAdapter(RunResult)


@dataclass(frozen=True)
class Change:
    """A figure of plain student and returned model: a metric, the F1 of a class, or how often it is taken for another.

    Attributes:
        label: The metric's or the class's name.
        before, after: None where there are no rows to measure on.
        rows: Of the class.
        taken_for: The other class.
        gain: The change with its interval, where that is known.
    """

    label: str
    before: float | None
    after: float | None
    rows: int = 0
    taken_for: str = ""
    gain: Interval | None = None

    @property
    def change(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Step:
    """A line of steps.jsonl with the texts that belong to it."""

    record: StepRecord
    accepted: Sequence[Row]
    rejected: Sequence[Row]
    evidence: Sequence[Row]


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
    result: RunResult | None
    config: str
    meta: Row

    @property
    def best_step(self) -> int:
        """The model with the lowest validation loss so far."""
        return max((step.record.kd_step for step in self.steps if step.record.is_best), default=0)

    @property
    def is_plain(self) -> bool:
        """Whether the best model is the plain student, so that there is no before and after."""
        return self.best_step == 0

    @property
    def is_tested(self) -> bool:
        return self.result is not None and self.result.test is not None

    @property
    def before(self) -> Evaluation | None:
        """The plain student on the test rows, else on the validation rows; None before it is trained."""
        return self._both[0] if self._both else None

    @property
    def after(self) -> Evaluation | None:
        """As `before`, of the best model."""
        return self._both[1] if self._both else None

    @property
    def _both(self) -> tuple[Evaluation, Evaluation] | None:
        if self.result and self.result.test:
            return self.result.test.before, self.result.test.after
        return (self.steps[0].record.validation, self.steps[self.best_step].record.validation) if self.steps else None

    def headlines(self) -> list[Change]:
        if self._both is None:
            return []
        before, after = (evaluation.report for evaluation in self._both)
        gains = self.result.test.gain if self.result and self.result.test else {}
        return [
            Change(title, getattr(before, name), getattr(after, name), gain=gains.get(name))
            for name, title in NAMES.items()
        ]

    def class_changes(self) -> list[Change]:
        """F1 of all classes, those that changed most first."""
        if self._both is None:
            return []
        pairs = zip(*(evaluation.report.classes for evaluation in self._both), strict=True)
        changes = [Change(old.label, _f1(old), _f1(new), rows=old.support) for old, new in pairs]
        return sorted(changes, key=lambda row: (row.change is None, -abs(row.change or 0.0), row.label))

    def confusion_changes(self) -> list[Change]:
        """Pairs of classes that are confused more often, or less, than before; the largest change first."""
        if self._both is None:
            return []
        before, after = (
            {(pair.gold_label, pair.predicted_label): pair.count for pair in evaluation.confusions}
            for evaluation in self._both
        )
        changes = [
            Change(gold, before.get((gold, predicted), 0), after.get((gold, predicted), 0), taken_for=predicted)
            for gold, predicted in dict.fromkeys([*before, *after])
        ]
        return sorted((row for row in changes if row.change), key=lambda row: (-abs(row.change or 0), row.label))

    def rejected_by_rule(self) -> list[tuple[str, int]]:
        return Counter(row["rule"] for step in self.steps for row in step.rejected).most_common()


def _f1(row: ClassMetrics) -> float | None:
    return row.f1 if row.has_data else None


def read_story(run: Path) -> Story:
    """Read a run directory, whether or not the run has ended.

    Raises:
        ConfigError, StorageError: See `read_meta`; or another file is damaged.
    """
    meta = read_meta(run)
    check_files(run)
    try:
        texts = [_by_step(run / f"{name}.jsonl") for name in ("history", "rejected", "evidence")]
        records = [_RECORD.validate_python(line) for line in read_lines(run / "steps.jsonl")]
        return Story(
            name=run.resolve().name,
            steps=[Step(record, *(rows.get(record.kd_step, ()) for rows in texts)) for record in records],
            result=read_result(run),
            config=(run / "config.yaml").read_text(encoding="utf-8"),
            meta=meta,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(run, error) from error


def read_result(run: Path) -> RunResult | None:
    """The outcome of a run; None before its end.

    Raises:
        StorageError: It is damaged.
    """
    file = run / "result.json"
    try:
        return _RESULT.validate_json(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise damaged(file, error) from error


def damaged(path: Path, error: Exception) -> StorageError:
    """What to raise where a run directory, or a file of it, is not what it should be."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    else:
        why = f"a row lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
    return StorageError(f"{path} is damaged: {why}")


def _by_step(file: Path) -> dict[int, list[Row]]:
    """Without step 0, whose rows are the real ones."""
    rows: dict[int, list[Row]] = {}
    for row in read_lines(file):
        if row["kd_step"]:
            rows.setdefault(row["kd_step"], []).append(row)
    return rows
