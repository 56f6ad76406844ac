"""CSV and TSV files as people have them: what separates their fields, and which quotes are part of the texts."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pgkd_agent.data.lines import text_lines
from pgkd_agent.errors import DataError

logger = logging.getLogger(__name__)

SEPARATORS = ",;\t|"

_SAYS_SEPARATOR = re.compile('"?sep=(.)"?\n?')
"""What spreadsheets put above the header."""


def delimited_records(path: Path) -> Iterator[dict[str, str]]:
    """The rows under the header, read as they are asked for; lines without any field are no rows.

    The header tells what separates the fields; where that is not what the suffix says, it is said. Quotes of a file
    with tabs are part of the texts, unless every one that opens a field also closes it.

    Raises:
        DataError: See `text_lines`; two columns of one name, a row with more fields than the header, or a quote that
            does not close.
    """
    separator = _separator(path)
    rows = _rows(path, separator)
    _, header = next(rows, (0, []))
    unique_names(header, str(path))
    for number, (line, fields) in enumerate(rows, 1):
        if any(fields[len(header) :]):
            raise DataError(
                f"{path}, row {number} has more fields than the header (line {line}: {len(fields)}, not {len(header)}, "
                f"separated by {separator!r}); quote texts with separators"
            )
        yield dict(zip(header, fields, strict=False))


def csv_lines(path: Path) -> list[list[str]]:
    """The fields of every line that is not empty, separated by commas, quoted line breaks kept.

    Raises:
        DataError: See `text_lines`; or the quotes do not match.
    """
    return [fields for _, fields in _rows(path, ",")]


def unique_names(names: Iterable[object], where: str, of: str = "columns") -> None:
    """
    Raises:
        DataError: Two columns have the same name, which is not empty.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(map(str, names), 1):
        if name.strip() and places.setdefault(name, place) != place:
            raise DataError(f"{where}: {of} {places[name]} and {place} are both named {name!r}; rename one")


def _separator(path: Path) -> str:
    """That which the header has most of; what the suffix says among equals."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    header = next((line for line in text_lines(path) if line.strip()), "")
    told = _SAYS_SEPARATOR.fullmatch(header)
    found = told[1] if told else max(usual + SEPARATORS, key=re.sub('"[^"]*"', "", header).count)
    if found != usual:
        logger.info("%s: taking %r as what separates the fields", path, found)
    return found


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the number of the line that they begin in."""
    unclosed = _unclosed_quote(path) if separator == "\t" else 0
    if unclosed:
        logger.info("%s: taking quotes as part of the texts: that in line %d does not close its field", path, unclosed)
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the default 128 KiB
    reader = csv.reader(
        text_lines(path),
        delimiter=separator,
        strict=True,
        quoting=csv.QUOTE_NONE if unclosed else csv.QUOTE_MINIMAL,
    )
    line = 1
    try:
        for fields in reader:
            if fields and not (line == 1 and _SAYS_SEPARATOR.fullmatch(separator.join(fields))):
                if reader.line_num > line + 1:
                    _look_for_rows(path, line, fields, separator)
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path} is not valid CSV: a quote in the row that begins in line {line} does not close its field "
            f'({error}); put quotes around the whole field, and write "" for each one within'
        ) from error


def _unclosed_quote(path: Path) -> int:
    """The first line of a file with tabs whose fields do not all close where they are quoted; 0 where there is none."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(text_lines(path), delimiter="\t", strict=True)
    line = 1
    try:
        for fields in reader:
            if any("\t" in field and "\n" in field for field in fields):
                return line
            line = reader.line_num + 1
    except csv.Error:
        return line
    return 0


def _look_for_rows(path: Path, line: int, fields: list[str], separator: str) -> None:
    """Say where a quote that was left open has made rows one text."""
    for field in fields:
        whole = field.split("\n")[:-1]
        if len(whole) > 1 and all(part.count(separator) == len(fields) - 1 > 0 for part in whole):
            logger.warning(
                "%s, line %d: a text of %d lines that look like rows: an open quote?", path, line, len(whole)
            )
