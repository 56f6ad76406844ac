"""The test rows of a run with what plain student and returned model make of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkd_agent.errors import DataError, StorageError
from pgkd_agent.files import read_lines
from pgkd_agent.runs.stored import PREDICTIONS_FILE
from pgkd_agent.runs.summary import RowPrediction
from pgkd_agent.workbench.filters import MistakeFilters

FIXED, BROKEN, STILL_WRONG, RIGHT = "fixed", "broken", "still wrong", "right"
KINDS = {
    FIXED: "wrong before, right after",
    BROKEN: "right before, wrong after",
    STILL_WRONG: "wrong before and after",
}
"""What is a mistake, and what it means."""


@dataclass(frozen=True)
class TestRow:
    """A test row; `gold` is its true label."""

    __test__ = False  # pytest takes it for a test

    text: str
    gold: str
    predicted: RowPrediction

    @property
    def is_right(self) -> bool:
        """By the returned model."""
        return self.predicted.after == self.gold

    @property
    def kind(self) -> str:
        """One of the words above."""
        if (self.predicted.before == self.gold) == self.is_right:
            return RIGHT if self.is_right else STILL_WRONG
        return FIXED if self.is_right else BROKEN

    def said_by(self, model: str) -> tuple[str, float]:
        """Label and confidence of the plain student (`before`), or of the returned model."""
        row = self.predicted
        return (row.before, row.before_confidence) if model == "before" else (row.after, row.after_confidence)


def read_test_rows(run: Path) -> list[TestRow]:
    """The test rows in their order.

    Raises:
        DataError: The run has none, has not ended, or is from before predictions were kept.
        StorageError: Its files do not fit together.
    """
    rows = read_lines(run / "test.jsonl")
    if not rows:
        raise DataError("This run has no test rows. Mistakes show of rows that nothing is chosen by.")
    if not (run / "result.json").is_file():
        raise DataError("This run has not ended. The test rows are predicted in the end.")
    if not (run / PREDICTIONS_FILE).is_file():
        raise DataError(
            "The predictions of this run's test rows are not there (predictions.jsonl). Once resumed, it has them."
        )
    predictions = [RowPrediction(**line) for line in read_lines(run / PREDICTIONS_FILE)]
    if len(predictions) != len(rows):
        raise StorageError(f"{run / PREDICTIONS_FILE} has {len(predictions)} lines, test.jsonl {len(rows)}")
    return [TestRow(row["text"], row["label"], predicted) for row, predicted in zip(rows, predictions, strict=True)]


def filtered(rows: Sequence[TestRow], filters: MistakeFilters) -> list[TestRow]:
    """Rows that all filters let through, those that the model is surest of first.

    Without a kind they are the mistakes of either model, and with a class that they are taken for those of one model.
    """

    def is_wanted(row: TestRow) -> bool:
        is_of_kind = row.kind == filters.kind if filters.kind else row.kind != RIGHT or bool(filters.taken_for)
        return (
            is_of_kind
            and filters.label in ("", row.gold)
            and filters.taken_for in ("", row.said_by(filters.model)[0])
            and filters.finds(row.text)
        )

    return sorted(filter(is_wanted, rows), key=lambda row: -row.said_by(filters.model)[1])
