"""One cell of a table as text or as label, and what counts as none."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable
from typing import Any

from pgkd_agent.errors import DataError
from pgkd_agent.text import counted, well_formed

NO_CLASS = "-1"
"""What data sets write beside class ids where a row has no class."""


def as_text(value: Any, what: str) -> str:
    """Numbers become their digits; a missing value (None, NaN, or pandas' NA) and one without a visible sign become
    empty. Half a surrogate pair is left as it is.

    Args:
        what: Such as `the text of row 3`, for messages.
    Raises:
        DataError: It is no single value, or bytes that are not UTF-8.
    """
    if type(value) is str:
        return visible(value)
    if hasattr(value, "tolist"):  # numpy, as Parquet and data frames give it
        value = value.tolist()
    if isinstance(value, (list, tuple, set, dict)):
        raise DataError(f"{what} is a {type(value).__name__}; expected one text: name another column, or take it apart")
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{what} is bytes that are not UTF-8; decode them") from error
    if value is None or type(value).__name__ == "NAType" or value != value:
        return ""
    return visible(str(value))


def visible(text: str) -> str:
    """The text without white space around it; empty where no sign of it can be seen."""
    text = text.strip()
    if text.isprintable():  # most texts; white space is gone
        return text
    return text if any((char.isprintable() and char != " ") or "\ud800" <= char <= "\udfff" for char in text) else ""


def as_label(value: Any, what: str) -> str:
    """As `as_text`; a number without decimals becomes an integer, since a column of those with a gap is of floats.

    Raises:
        DataError: See `as_text`; also for a text that spells a Python or JSON list.
    """
    if type(value) is str and "[" not in value:
        return visible(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, (list, tuple, set, dict)):
        raise DataError(
            f"{what} is a {type(value).__name__}; several labels a row (multi-label) are not supported: "
            "keep one label a row, or train one classifier a label"
        )
    return as_text(int(value) if isinstance(value, float) and value.is_integer() else value, what)


def are_ids(labels: Iterable[str]) -> bool:
    """Whether all are integers from 0 on, but for `NO_CLASS` and empty ones. The pair -1 and 1 are two classes."""
    found = {*labels} - {""}
    return found != {NO_CLASS, "1"} and all(label.isdecimal() or label == NO_CLASS for label in found)


class Mender:
    """Repairs halves of surrogate pairs, and counts the texts that had one."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, text: str) -> str:
        mended = text if text.isascii() else well_formed(text)
        self.count += mended != text
        return mended

    @property
    def note(self) -> str:
        return f"repaired {counted(self.count, 'text')} with half a surrogate pair (U+FFFD stands for it)"
