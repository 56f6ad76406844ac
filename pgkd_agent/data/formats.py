"""The rows of CSV, TSV, JSONL and Parquet files, whole or as a stream."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pgkd_agent.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

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
    """As `read_records`, read as they are asked for."""
    suffix = existing(path).suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if suffix in (".csv", ".tsv"):
        return _delimited(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _parquet(path)
    raise DataError(f"{path}: unknown format {suffix!r}; expected one of {', '.join(SUFFIXES)}")


def existing(path: Path) -> Path:
    """
    Raises:
        DataError: There is no such file.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    return path


def read_text_file(path: Path) -> str:
    """The whole file as text, a byte order mark left out.

    Raises:
        DataError: It cannot be read, is not UTF-8, or holds NUL bytes; the line is named.
    """
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    """The lines as `read_text_file` has them, with their ends, which are line feeds; read as they are asked for."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield _decoded(path, number, line)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        encoding = _likely_encoding(line)
        raise DataError(
            f"{path}, line {number}: byte 0x{line[error.start]:02x} is not UTF-8; the file looks like "
            f"{encoding}: save it as UTF-8 (iconv -f {encoding} -t UTF-8)"
        ) from error
    if "\0" in text:
        raise DataError(
            f"{path}, line {number}: a NUL byte; the file is UTF-16, binary or damaged: save it as UTF-8 text"
        )
    return text


def _likely_encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in Windows-1252
        return "ISO-8859-1"
    return "WINDOWS-1252"


def read_json_lines(path: Path) -> list[Record]:
    """The objects of a file with one a line, empty lines left out.

    Raises:
        DataError: See `read_text_file`; or a line is no JSON object.
    """
    return list(_json_lines(path))


def _json_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number} is not JSON: {error.msg}") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: expected an object, found {type(record).__name__}")
        yield record


def _delimited(path: Path, delimiter: str) -> Iterator[Record]:
    lines = _csv_rows(path, delimiter)
    header = next(lines, [])
    for number, fields in enumerate(lines, 1):
        if len(fields) > len(header):
            raise DataError(f"{path}, row {number} has more fields than the header; quote texts with separators")
        yield dict(zip(header, fields, strict=False))


def csv_lines(path: Path, delimiter: str = ",") -> list[list[str]]:
    """The fields of every line that is not empty, quoted line breaks kept.

    Raises:
        DataError: See `read_text_file`; or the quotes do not match.
    """
    return list(_csv_rows(path, delimiter))


def _csv_rows(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the default 128 KiB
    lines = (line.removesuffix("\n").removesuffix("\r") + "\n" for line in text_lines(path))
    try:
        yield from (row for row in csv.reader(lines, delimiter=delimiter, strict=True) if row)
    except csv.Error as error:
        raise DataError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_ROWS):
                yield from batch.to_pylist()
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
