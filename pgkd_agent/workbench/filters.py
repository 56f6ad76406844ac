"""What a page shows of many rows: filters that stand in its address, and one page of what they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from pgkd_agent.text import normalize

ROWS_OF_PAGE = 50

R = TypeVar("R")


class Filters(BaseModel):
    """Of a page about a run; an empty one lets everything through."""

    run: str
    search: str = ""
    page: int = Field(1, ge=1)

    def finds(self, *texts: str) -> bool:
        """Whether one of the texts holds what is searched for, but for case, width and white space."""
        wanted = normalize(self.search)
        return not wanted or any(wanted in normalize(text) for text in texts)

    def as_query(self) -> dict[str, Any]:
        """Without what is not set."""
        return self.model_dump(exclude_defaults=True)


class SampleFilters(Filters):
    """Of samples; `decided` is `yes` or `no`."""

    step: str = ""
    label: str = ""
    status: str = ""
    rule: str = ""
    source: str = ""
    decided: str = ""


class MistakeFilters(Filters):
    """Of test rows; `kind` is a `Kind`, `taken_for` what `model` (`before` or `after`) predicts."""

    kind: str = ""
    label: str = ""
    taken_for: str = ""
    model: str = "after"


class CallFilters(Filters):
    """Of calls to the teacher."""

    step: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Page(Generic[R]):
    """Some of the rows that were found.

    Attributes:
        number: From 1; the last one where a later one was asked for.
        found: Rows on all pages.
    """

    rows: Sequence[R]
    number: int
    pages: int
    found: int
    of: int

    @classmethod
    def cut(cls, found: Sequence[R], number: int, of: int) -> Page[R]:
        """
        Args:
            number: That was asked for.
            of: Rows there are without filters.
        """
        pages = max(-(-len(found) // ROWS_OF_PAGE), 1)
        number = min(number, pages)
        start = (number - 1) * ROWS_OF_PAGE
        return cls(found[start : start + ROWS_OF_PAGE], number, pages, len(found), of)


def choices(values: Iterable[Any]) -> list[tuple[str, int]]:
    """The values of a filter, in order, with the number of rows of each; empty ones are left out."""
    counts = Counter(value for value in values if value != "")
    return [(str(value), count) for value, count in sorted(counts.items())]
