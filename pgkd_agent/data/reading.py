"""Read labelled rows and bare texts from files, or from what is in memory."""

from __future__ import annotations

import ast
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from pgkd_agent.data.formats import Record, existing, read_records, stream_records, text_lines
from pgkd_agent.errors import DataError
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "content", "query", "utterance", "message", "review", "headline", "title")
LABEL_COLUMNS = ("label", "intent", "category", "class", "target", "topic", "label_name")

ROWS_NAMED = 10
"""Most row numbers in a message."""


class Table(Protocol):
    """A pandas DataFrame or a Hugging Face Dataset."""

    def to_dict(self, *args: Any, **kwargs: Any) -> Any: ...


Rows: TypeAlias = str | Path | Table | Iterable[Example | Record | Sequence[Any]]
"""Labelled rows: a file (CSV, TSV, JSONL, Parquet), a pandas DataFrame, a Hugging Face Dataset, or `Example`s, mappings
or `(text, label)` pairs."""


def read_examples(
    source: Rows,
    text_column: str | None = None,
    label_column: str | None = None,
    skip_incomplete: bool = False,
) -> list[Example]:
    """Read labelled rows.

    Args:
        source: See `Rows`.
        text_column: None guesses among `TEXT_COLUMNS` and says so; likewise `label_column`.
        skip_incomplete: Drop rows without text or label, aloud, instead of refusing them.
    Raises:
        DataError: No such file or column, an unreadable line, rows without text or label (their numbers are
            named, from 1, a header not counted), or several labels in one row.
    """
    if isinstance(source, Iterable) and not isinstance(source, str) and not _is_table(source):
        source = list(source)
        if source and not isinstance(source[0], Mapping):
            return complete_rows(_pairs(source), "the rows", skip_incomplete)
    records, where = _records(source)
    if not records:
        raise DataError(f"{where} holds no rows")
    text = _column(records, text_column, TEXT_COLUMNS, "text", where)
    label = _column(records, label_column, LABEL_COLUMNS, "label", where)
    return complete_rows(((record.get(text), record.get(label)) for record in records), where, skip_incomplete)


def complete_rows(pairs: Iterable[tuple[Any, Any]], where: str, skip_incomplete: bool = False) -> list[Example]:
    """Make examples of (text, label) pairs; see `read_examples` for rows that lack one of them.

    Args:
        where: The source, for messages.
    """
    rows: list[Example] = []
    lacking: dict[str, list[int]] = {"text": [], "label": []}
    for number, (raw_text, raw_label) in enumerate(pairs, 1):
        text, label = _as_text(raw_text), _as_label(raw_label, f"{where}, row {number}")
        if text and label:
            rows.append(Example(text, label))
            continue
        for role, value in (("text", text), ("label", label)):
            if not value:
                lacking[role].append(number)
    complaint = "; ".join(f"{named_rows(numbers)} without a {role}" for role, numbers in lacking.items() if numbers)
    if complaint and not skip_incomplete:
        raise DataError(
            f"{where}: {complaint}; fill in or remove them, or leave them out with `data.skip_incomplete=true`"
        )
    if complaint:
        logger.warning("%s: left out %s", where, complaint)
    return rows


def read_texts(source: Path, text_column: str | None = None) -> list[str]:
    """Read texts without labels; a `.txt` file holds one a line."""
    return list(stream_texts(source, text_column))


def stream_texts(source: Path, text_column: str | None = None) -> Iterator[str]:
    """As `read_texts`, a row (of Parquet: a batch of rows) at a time, for files larger than memory.

    Raises:
        DataError: At once for what the first row shows, later for a row that cannot be read.
    """
    if source.suffix == ".txt":
        lines = (part for line in text_lines(existing(source)) for part in line.splitlines() if part.strip())
        return _started(lines)
    records = _started(stream_records(source))
    first = next(records, None)
    if first is None:
        return iter(())
    column = _column([first], text_column, TEXT_COLUMNS, "text", str(source))
    return (str(record.get(column) or "") for record in chain([first], records))


def _started(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the first one read already, so that a file that cannot be read is an error here."""
    return chain(list(islice(items, 1)), items)


def named_rows(numbers: Sequence[int]) -> str:
    """Such as `2 rows (7, 12)`."""
    shown = ", ".join(map(str, numbers[:ROWS_NAMED])) + (", ..." if len(numbers) > ROWS_NAMED else "")
    return f"{len(numbers)} row{'s'[: len(numbers) > 1]} ({shown})"


def _is_table(source: Any) -> bool:
    """A `datasets.Dataset` or a pandas DataFrame."""
    return hasattr(source, "column_names") or hasattr(source, "to_dict")


def _pairs(rows: Sequence[Any]) -> list[tuple[Any, Any]]:
    try:
        return [(row.text, row.label) if isinstance(row, Example) else (row[0], row[1]) for row in rows]
    except (TypeError, LookupError) as error:
        raise DataError(f"rows must be mappings, pairs or Examples, found {type(rows[0]).__name__}") from error


def _records(source: Any) -> tuple[list[Record], str]:
    if isinstance(source, (str, Path)):
        path = Path(source)
        return read_records(path), str(path)
    if hasattr(source, "column_names"):
        return dataset_records(source), "the dataset"
    if hasattr(source, "to_dict"):
        return source.to_dict("records"), "the data frame"
    return list(source), "the rows"


def dataset_records(dataset: Any) -> list[Record]:
    """Rows of a `datasets.Dataset`, class ids turned into the names its features know."""
    features = getattr(dataset, "features", None) or {}
    named = {column: feature.int2str for column, feature in features.items() if hasattr(feature, "int2str")}
    return [{key: named[key](value) if key in named else value for key, value in record.items()} for record in dataset]


def _column(records: Sequence[Record], wanted: str | None, guesses: Sequence[str], role: str, where: str) -> str:
    columns = list(records[0])
    if wanted is not None:
        if wanted not in columns:
            raise DataError(f"{where} has no column {wanted!r}; it has: {', '.join(map(str, columns))}")
        return wanted
    by_lower = {str(column).strip().lower(): column for column in reversed(columns)}
    for guess in guesses:
        if guess in by_lower:
            if guess != role:
                logger.info("%s: taking column %r as the %s", where, by_lower[guess], role)
            return by_lower[guess]
    raise DataError(
        f"{where}: no column looks like the {role}; it has: {', '.join(map(str, columns))}; "
        f"name it with `data.{role}_column`"
    )


def _as_label(value: Any, where: str) -> str:
    """A label as text; one that is a list, or a text that spells a Python or JSON list, is refused."""
    if hasattr(value, "tolist"):  # numpy, as Parquet and data frames give it
        value = value.tolist()
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, (list, tuple, set, dict)):
        raise DataError(
            f"{where}: the label is a {type(value).__name__}; several labels a row (multi-label) are not supported: "
            "keep one label a row, or train one classifier a label"
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of integers with a gap is read as floats
    return _as_text(value)


def _as_text(value: Any) -> str:
    """Numbers become their digits; a missing value (None, NaN, or pandas' NA) becomes empty."""
    if value is None or type(value).__name__ == "NAType":
        return ""
    return "" if value != value else str(value).strip()
