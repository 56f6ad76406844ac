"""Two runs on the same test rows: which settings differ, and by how much the one is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkd_agent.config import PGKDConfig, flat_settings
from pgkd_agent.errors import DataError
from pgkd_agent.metrics.intervals import METRICS, Interval
from pgkd_agent.metrics.report import class_ids
from pgkd_agent.runs.evaluation import gains
from pgkd_agent.runs.stored import StoredRun
from pgkd_agent.runs.summary import NAMES
from pgkd_agent.types import Example
from pgkd_agent.workbench.mistakes import TestRow, read_test_rows


@dataclass(frozen=True)
class Difference:
    """A metric of both runs on the test rows, and what the second has over the first."""

    name: str
    first: float
    second: float
    gain: Interval


@dataclass(frozen=True)
class Comparison:
    """
    Attributes:
        settings: Key, and its value in each run, of those that differ.
        rows: Test rows.
        first_only, second_only: Those that the first, and that the second alone has right, as each predicts them.
    """

    settings: Sequence[tuple[str, str, str]]
    differences: Sequence[Difference]
    rows: int
    first_only: Sequence[tuple[TestRow, TestRow]]
    second_only: Sequence[tuple[TestRow, TestRow]]


def compare(first: tuple[Path, StoredRun], second: tuple[Path, StoredRun]) -> Comparison:
    """Hold the returned models of two runs against each other; a paired bootstrap over the test rows.

    Raises:
        DataError: Their test rows or their classes are not the same, or one of them keeps no predictions.
        StorageError: See `read_test_rows`.
    """
    ours, theirs = (  # in one order, whatever that of the files
        sorted(read_test_rows(path), key=lambda row: (row.text, row.gold)) for path, _ in (first, second)
    )
    _require_same(ours, theirs, first[1], second[1])
    taxonomy = first[1].task.taxonomy
    gold, before, after = (
        class_ids([Example(row.text, label) for row, label in zip(rows, labels, strict=True)], taxonomy)
        for rows, labels in (
            (ours, [row.gold for row in ours]),
            (ours, [row.predicted.after for row in ours]),
            (theirs, [row.predicted.after for row in theirs]),
        )
    )
    return Comparison(
        settings=_differing(first[1].config, second[1].config),
        differences=[
            Difference(
                NAMES[name],
                METRICS[name](gold, before, len(taxonomy)),
                METRICS[name](gold, after, len(taxonomy)),
                gain,
            )
            for name, gain in gains(gold, before, after, len(taxonomy)).items()
        ],
        rows=len(ours),
        first_only=[(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_right and not b.is_right],
        second_only=[(a, b) for a, b in zip(ours, theirs, strict=True) if b.is_right and not a.is_right],
    )


def _require_same(ours: Sequence[TestRow], theirs: Sequence[TestRow], first: StoredRun, second: StoredRun) -> None:
    counts = [Counter((row.text, row.gold) for row in rows) for rows in (ours, theirs)]
    if counts[0] != counts[1]:
        shared = (counts[0] & counts[1]).total()
        raise DataError(
            f"The test rows are not the same: {len(ours)} and {len(theirs)}, of which {shared} are in both. "
            "Figures on other rows cannot be held against each other."
        )
    if {label.name for label in first.task.taxonomy} != {label.name for label in second.task.taxonomy}:
        raise DataError("The classes are not the same, so their figures cannot be held against each other.")


def _differing(first: PGKDConfig, second: PGKDConfig) -> list[tuple[str, str, str]]:
    ours, theirs = (dict(flat_settings(config)) for config in (first, second))
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if ours.get(key) != theirs.get(key)]
    return [(key, _shown(ours.get(key)), _shown(theirs.get(key))) for key in keys]


def _shown(value: object) -> str:
    return "" if value is None else str(value)
