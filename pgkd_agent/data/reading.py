"""Read labelled rows and bare texts from files, or from what is in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO

from pgkd_agent.data.containers import Rows, records_of
from pgkd_agent.data.formats import Record, stream_records
from pgkd_agent.data.lines import decoded_lines, existing, text_lines
from pgkd_agent.data.values import NO_CLASS, Mender, are_ids, as_label, as_text
from pgkd_agent.errors import DataError
from pgkd_agent.text import counted
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "content", "query", "utterance", "message", "review", "headline", "title")
LABEL_COLUMNS = ("label", "intent", "category", "class", "target", "topic", "label_name", "label_text")

SEPARATED = (".csv", ".tsv")

ROWS_NAMED = 10
"""Most row numbers in a message."""


def read_examples(
    source: Rows,
    text_column: str | None = None,
    label_column: str | None = None,
    skip_incomplete: bool = False,
) -> list[Example]:
    """Read labelled rows.

    Args:
        source: See `Rows`.
        text_column: None guesses among `TEXT_COLUMNS` and says so; likewise `label_column`. Where the labels are class
            ids, and a column beside them has their names, those are taken, aloud.
        skip_incomplete: Drop rows without text or label, aloud, instead of refusing them. Beside class ids a label of
            -1 is none.

    Raises:
        DataError: No such file or column, an unreadable line, rows without text or label (their numbers are
            named, from 1, a header not counted), several labels in one row, or what is no text or label at all.
    """
    held = records_of(source)
    records, where = held.records, held.where
    if not held.has_names:
        text_column = label_column = None
    if not records:
        raise DataError(f"{where} holds no rows")
    text = _column(records, text_column, TEXT_COLUMNS, "text", where)
    label = _column(records, label_column, LABEL_COLUMNS, "label", where)
    labels = _labels(records, label, where) if label_column is None else [record.get(label) for record in records]
    texts = [record.get(text) for record in records]
    return complete_rows(zip(texts, labels, strict=True), where, skip_incomplete, text)


def complete_rows(
    pairs: Iterable[tuple[Any, Any]],
    where: str,
    skip_incomplete: bool = False,
    column: str = "text",
    numbers: Sequence[int] | None = None,
    advice: str = "fill in or remove them, or leave them out with the setting data.skip_incomplete=true",
) -> list[Example]:
    """Make examples of (text, label) pairs; see `read_examples` for rows that lack one of them.

    Args:
        where: The source, for messages.
        column: Where the texts are from, for messages.
        numbers: Of the rows, for messages; None counts from 1.
        advice: What to do about rows that lack something, for messages.
    """
    mend = Mender()
    rows = [
        (
            number,
            mend(as_text(text, f"{where}, row {number}: the text (column {column!r})")),
            mend(as_label(label, f"{where}, row {number}: the label")),
        )
        for number, (text, label) in zip(numbers or count(1), pairs, strict=False)
    ]
    if mend.count:
        logger.warning("%s: %s", where, mend.note)
    has_ids = are_ids(label for _, _, label in rows)
    none = {"", NO_CLASS} if has_ids else {""}
    lacking = {
        "text": [number for number, text, _ in rows if not text],
        "label": [number for number, _, label in rows if label in none],
    }
    complaint = "; ".join(f"{named_rows(numbers)} without a {role}" for role, numbers in lacking.items() if numbers)
    if has_ids and any(label == NO_CLASS for _, _, label in rows):
        complaint += f" ({NO_CLASS} beside class ids is none; a class has a name)"
    if complaint and not skip_incomplete:
        raise DataError(f"{where}: {complaint}; {advice}")
    if complaint:
        logger.warning("%s: left out %s", where, complaint)
    return [Example(text, label) for _, text, label in rows if text and label not in none]


Texts = Path | str | Iterable[str]
"""Texts without labels: a file, or strings."""


def read_pool(texts: Texts, text_column: str | None = None) -> Iterable[str]:
    """The texts of a file, or those given.

    Raises:
        DataError: See `stream_texts`.
    """
    if isinstance(texts, str | Path):
        return stream_texts(texts, text_column)
    given = (as_text(text, f"unlabelled text {number}") for number, text in enumerate(texts, 1))
    return _mended(given, "the unlabelled texts")


def read_texts(source: str | Path, text_column: str | None = None) -> list[str]:
    """Read texts without labels; a `.txt` file holds one a line, and an empty line is an empty text."""
    return list(stream_texts(source, text_column))


def stream_texts(source: str | Path | BinaryIO, text_column: str | None = None) -> Iterator[str]:
    """As `read_texts`, a row (of Parquet: a batch of rows) at a time, for files larger than memory.

    Args:
        source: A file, or lines that are open already, such as `sys.stdin.buffer`.
    Raises:
        DataError: At once for what the first row shows, later for a row that cannot be read.
    """
    return (text for text, _record in stream_rows(source, text_column))


def stream_rows(source: str | Path | BinaryIO, text_column: str | None = None) -> Iterator[tuple[str, Record]]:
    """As `stream_texts`, each text with the row that it is from, as that was written; a line is a row of one text."""
    if not isinstance(source, (str, Path)):
        return _lines(decoded_lines(source, "standard input"), "standard input")
    source = Path(source)
    if source.suffix.lower() == ".txt":
        return _lines(text_lines(existing(source)), str(source))
    records = _started(stream_records(source))
    first = next(records, None)
    if first is None:
        return iter(())
    column = _column([first], text_column, TEXT_COLUMNS, "text", str(source))
    rows = (
        (_text(record.get(column), f"{source}, row {number}: the text (column {column!r})"), record)
        for number, record in enumerate(chain([first], records), 1)
    )
    return _mended_rows(_started(rows), str(source))


def _text(value: Any, where: str) -> str:
    """A string as it is, blanks around it too."""
    return value if isinstance(value, str) else as_text(value, where)


def _lines(lines: Iterator[str], where: str) -> Iterator[tuple[str, Record]]:
    texts = (line.removesuffix("\n") for line in _started(lines))
    return _mended_rows(((text, {"text": text}) for text in texts), where)


def _mended_rows(rows: Iterator[tuple[str, Record]], where: str) -> Iterator[tuple[str, Record]]:
    mend = Mender()
    for text, record in rows:
        yield mend(text), record
    if mend.count:
        logger.warning("%s: %s", where, mend.note)


def _mended(texts: Iterator[str], where: str) -> Iterator[str]:
    return (text for text, _record in _mended_rows(((text, {}) for text in texts), where))


def _started(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the first one read already, so that a file that cannot be read is an error here."""
    return chain(list(islice(items, 1)), items)


def named_rows(numbers: Sequence[int]) -> str:
    """Such as `2 rows (7, 12)`."""
    shown = ", ".join(map(str, numbers[:ROWS_NAMED])) + (", ..." if len(numbers) > ROWS_NAMED else "")
    return f"{counted(len(numbers), 'row')} ({shown})"


def _column(records: Sequence[Record], wanted: str | None, guesses: Sequence[str], role: str, where: str) -> Any:
    columns = {str(name): name for record in records for name in record}
    shown = ", ".join(map(repr, columns))
    option = f"`data.{role}_column`"
    cells = ((name, record.get(columns[name])) for name in columns for record in records)
    names_a_value = {name for name, cell in cells if isinstance(cell, str) and cell == name}
    if wanted is not None:
        if wanted not in columns:
            raise DataError(f"{where} has no column {wanted!r}; it has: {shown}")
        if wanted in names_a_value:
            logger.warning("%s: column %r also has the value %r; is its first line a row?", where, wanted, wanted)
        return columns[wanted]
    for guess in guesses:
        alike = [name for name in columns if name.strip().lower() == guess]
        if len(alike) > 1:
            raise DataError(
                f"{where}: {' and '.join(map(repr, alike))} both look like the {role}; name one with {option}"
            )
        if alike:
            if guess != role:
                logger.info("%s: taking column %r as the %s", where, alike[0], role)
            return columns[alike[0]]
    advice = f"name it with {option}"
    if where.endswith(SEPARATED):
        above = "put a line with names above it, such as text,label, separated as the rows are"
        advice = (
            f"its first line looks like a row: {above}"
            if names_a_value
            else f"{advice}, or, if its first line is a row, {above}"
        )
    raise DataError(f"{where}: no column looks like the {role}; it has: {shown}; {advice}")


def _labels(records: Sequence[Record], column: Any, where: str) -> list[Any]:
    """The values of a column; of one with class ids the names that another column has for them, one an id."""
    ids = [
        as_label(record.get(column), f"{where}, row {number}: the label") for number, record in enumerate(records, 1)
    ]
    if not are_ids(ids):
        return ids
    for beside in [f"{column}_text", f"{column}_name", *LABEL_COLUMNS]:
        pairs = {
            (each, name)
            for each, record in zip(ids, records, strict=True)
            if each not in ("", NO_CLASS) and (name := as_label(record.get(beside), f"{where}: {beside}"))
        }
        names = dict(pairs)
        if pairs and len(pairs) == len(names) == len({*names.values()}) and not are_ids(names.values()):
            logger.info("%s: column %r has class ids; taking their names from column %r", where, column, beside)
            return [names.get(each, "" if each == NO_CLASS else each) for each in ids]
    return ids
