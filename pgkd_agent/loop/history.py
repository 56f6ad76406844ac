"""D0 .. Di of Algorithm 1 with their provenance; it only ever grows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pgkd_agent.types import Example, Shares, Source


@dataclass(frozen=True, slots=True)
class HistoryRow(Example):
    """A training row; `kd_step` 0 is a real row, else the step whose teacher reply it came from.

    `shares` is what to train on in place of the label, where the teacher's word alone is not taken for it.
    """

    kd_step: int = 0
    request_index: int = 0
    source: Source = "real"
    shares: Shares = ()

    @property
    def is_real(self) -> bool:
        return self.kd_step == 0


@dataclass(frozen=True, slots=True)
class History:
    """All rows that the student is trained on: the real ones, and what was accepted in each KD step."""

    rows: tuple[HistoryRow, ...]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> History:
        """A history of real rows."""
        return cls(tuple(HistoryRow(row.text, row.label) for row in examples))

    def extended(self, rows: Iterable[HistoryRow]) -> History:
        """This one with further rows; it itself stays as it is."""
        return History((*self.rows, *rows))

    def __len__(self) -> int:
        return len(self.rows)


def texts_of(rows: Sequence[Example]) -> list[str]:
    return [row.text for row in rows]
