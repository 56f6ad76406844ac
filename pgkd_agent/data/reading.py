"""Read labelled rows and bare texts from CSV, TSV, JSONL and Parquet, or from what is in memory."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgkd_agent.errors import DataError
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "content", "query", "utterance", "message", "review", "headline", "title")
LABEL_COLUMNS = ("label", "intent", "category", "class", "target", "topic", "label_name")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

Record = Mapping[str, Any]


def read_examples(
    source: Path | Iterable[Any] | Any, text_column: str | None = None, label_column: str | None = None
) -> list[Example]:
    """Read labelled rows.

    Args:
        source: A file, a pandas DataFrame, a Hugging Face Dataset, or an iterable of mappings,
            `(text, label)` pairs or `Example`s.
        text_column: None guesses among `TEXT_COLUMNS` and says so; likewise `label_column`.
    Raises:
        DataError: No such file or column, an unreadable line, an empty text or label; rows are named.
    """
    if not isinstance(source, (str, Path)) and not _is_table(source):
        source = list(source)
        if source and not isinstance(source[0], Mapping):
            return [_example(*pair, f"row {n}") for n, pair in enumerate(_pairs(source), 1)]
    records, where = _records(source)
    if not records:
        raise DataError(f"{where} holds no rows")
    text = _column(records, text_column, TEXT_COLUMNS, "text", where)
    label = _column(records, label_column, LABEL_COLUMNS, "label", where)
    return [_example(record.get(text), record.get(label), f"{where}, row {n}") for n, record in enumerate(records, 1)]


def read_texts(source: Path, text_column: str | None = None) -> list[str]:
    """Read texts without labels; a `.txt` file holds one a line."""
    if source.suffix == ".txt":
        return [line for line in _read(source).splitlines() if line.strip()]
    records, where = _records(source)
    column = _column(records, text_column, TEXT_COLUMNS, "text", where) if records else ""
    return [str(record.get(column) or "") for record in records]


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
        return _read_file(path), str(path)
    if hasattr(source, "column_names"):
        return _dataset_records(source), "the dataset"
    if hasattr(source, "to_dict"):
        return source.to_dict("records"), "the data frame"
    return list(source), "the rows"


def _dataset_records(dataset: Any) -> list[Record]:
    """Rows of a `datasets.Dataset`, class ids turned into the names its features know."""
    features = getattr(dataset, "features", None) or {}
    named = {column: feature.int2str for column, feature in features.items() if hasattr(feature, "int2str")}
    return [{key: named[key](value) if key in named else value for key, value in record.items()} for record in dataset]


def _read_file(path: Path) -> list[Record]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    if suffix in (".csv", ".tsv"):
        return _read_delimited(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(f"{path}: unknown format {suffix!r}; expected one of {', '.join(SUFFIXES)}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); convert it first, e.g. with iconv") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_jsonl(path: Path) -> list[Record]:
    records: list[Record] = []
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number} is not JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected an object, found {type(record).__name__}")
        records.append(record)
    return records


def _read_delimited(path: Path, delimiter: str) -> list[Record]:
    lines = _read(path).replace("\r\n", "\n").split("\n")
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the default 128 KiB
    try:
        rows = list(csv.DictReader((line + "\n" for line in lines), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    for number, row in enumerate(rows, 1):
        if None in row:
            raise DataError(f"{path}, row {number} has more fields than the header; quote texts with separators")
    return rows  # type: ignore[return-value]


def _read_parquet(path: Path) -> list[Record]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        rows: list[Record] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    return rows


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
        f"name it with --{role}-column"
    )


def _example(text: Any, label: Any, where: str) -> Example:
    if isinstance(label, (list, tuple, set, dict)):
        raise DataError(f"{where}: the label is a {type(label).__name__}; several labels a row are not supported")
    text, label = _as_text(text), _as_text(label)
    for role, value in (("text", text), ("label", label)):
        if not value:
            raise DataError(f"{where} has no {role}; fill it in or remove the row")
    return Example(text, label)


def _as_text(value: Any) -> str:
    """Numbers become their digits; a missing value (None, or a float that is NaN) becomes empty."""
    return "" if value is None or value != value else str(value).strip()
