"""The rows of CSV, TSV, JSON, JSONL and Parquet files, whole or as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pgkd_agent.data.delimited import delimited_records, unique_names
from pgkd_agent.data.lines import existing, read_text_file, text_lines
from pgkd_agent.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")

PARQUET_ROWS = 1024
"""Rows of a Parquet file that are in memory at a time, when it is read as a stream."""

Record = Mapping[str, Any]


def read_records(path: Path) -> list[Record]:
    """The rows of a file as mappings, by its suffix.

    Raises:
        DataError: No such file, an unknown format, or one that cannot be read.
    """
    return list(stream_records(path))


def stream_records(path: Path) -> Iterator[Record]:
    """As `read_records`, read as they are asked for; what is one JSON list is read whole."""
    suffix = existing(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json(path)
    if suffix in (".csv", ".tsv"):
        return delimited_records(path)
    if suffix == ".parquet":
        return _parquet(path)
    advice = "; unpack it first" if suffix in PACKED else ""
    raise DataError(f"{path}: unknown format {suffix!r}; expected one of {', '.join(SUFFIXES)}{advice}")


def read_json_lines(path: Path) -> list[Record]:
    """The objects of a file with one a line, empty lines left out.

    Raises:
        DataError: See `read_text_file`; or a line is no JSON object.
    """
    return list(_json_lines(path))


def _json(path: Path) -> Iterator[Record]:
    """Of a file with an object a line, with one list of objects, or with one object that has a list for each column."""
    head = list(islice((line.strip() for line in text_lines(path) if line.strip()), 2))
    is_one_value = head and (
        head[0].startswith("[") or head[0] == "{" or (path.suffix.lower() == ".json" and len(head) == 1)
    )
    if not is_one_value:
        return _json_lines(path)
    content = _loaded(read_text_file(path), str(path))
    if isinstance(content, dict):
        has_columns = all(isinstance(column, list) for column in content.values())
        return iter(records_of_columns(content, str(path)) if has_columns else [content])
    if not isinstance(content, list):
        raise DataError(f"{path}: expected objects, found {type(content).__name__}")
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}: expected an object, found {type(row).__name__}")
    return iter(content)


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        record = _loaded(line, str(path), number)
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected an object, found {type(record).__name__}")
        yield record


def _loaded(text: str, where: str, line: int = 0) -> Any:
    """
    Args:
        line: The one that the text is; 0 for a whole file.
    Raises:
        DataError: It is no JSON, nested too deeply, or has a number too long for Python, or a key twice.
    """
    place = f"{where}, line {line}" if line else where
    try:
        return json.loads(text, object_pairs_hook=unique_object)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, line {line or error.lineno} is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{place}: lists or objects are nested too deeply to be rows") from error
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except ValueError as error:
        raise DataError(f"{place}: a number has too many digits; put it in quotes") from error


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    Raises:
        DataError: An object has a key twice, of which Python would take the last.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        unique_names((name for name, _ in pairs), "an object", "keys")
    return made


def records_of_columns(columns: Mapping[str, Any], where: str) -> list[Record]:
    """Rows of a mapping that has a list, or what can be listed, for each column.

    Raises:
        DataError: It has something else, or the columns differ in length.
    """
    if not columns or any(
        isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__") for column in columns.values()
    ):
        raise DataError(
            f"{where}: expected rows, or a list for each column; found one object with {', '.join(map(repr, columns))}"
        )
    lengths = {str(name): len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{where}: columns of different lengths: {', '.join(f'{n} {name!r}' for name, n in lengths.items())}"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from arrow_records(file.schema_arrow, file.iter_batches(PARQUET_ROWS), str(path))
    except (OSError, ValueError, pyarrow.lib.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def arrow_records(schema: Any, batches: Iterable[Any], where: str) -> Iterator[Record]:
    """Rows of Arrow's record batches, class ids turned into the names that the schema knows.

    Args:
        schema: Its metadata may have the features of a Hugging Face dataset.
    """
    unique_names(schema.names, where)
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (told.get("info") or {}).get("features") or {}
    names = {column: each["names"] for column, each in features.items() if isinstance(each, dict) and each.get("names")}
    for batch in batches:
        for record in batch.to_pylist():
            yield with_names(record, names)


def with_names(record: Record, names: Mapping[str, Sequence[str]]) -> Record:
    """The record with names for the class ids of some columns; an id below 0, the mark for no class, becomes None.

    Raises:
        DataError: An id is none of those that have a name.
    """
    return {**record, **{column: _name(record.get(column), known, column) for column, known in names.items()}}


def _name(value: Any, names: Sequence[str], column: str) -> Any:
    if not isinstance(value, int):
        return value
    if value >= len(names):
        raise DataError(f"column {column!r} has the class id {value}, and names for 0 to {len(names) - 1}")
    return names[value] if value >= 0 else None
