"""The lines of text files and of standard input: what encoding they are in, and where one ends."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pgkd_agent.errors import DataError

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, and the codecs that take them off."""

_UNDECODED = re.compile("[\udc80-\udcff]")
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f]")


def existing(path: Path) -> Path:
    """
    Raises:
        DataError: There is no such file, it may not be looked at, or it is a folder or a pipe.
    """
    try:
        if path.is_file():
            return path
        if path.exists():
            raise DataError(f"{path} is a {'folder' if path.is_dir() else 'pipe or device'}; expected a file")
    except OSError as error:  # such as a name that is too long
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    raise DataError(f"no such file: {path}")


def read_text_file(path: Path) -> str:
    """The whole file as text, a byte order mark left out.

    Raises:
        DataError: It cannot be read, is not UTF-8 and has no byte order mark that says what it is, or holds NUL bytes;
            the line is named.
    """
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    """The lines as `read_text_file` has them, with their ends, which are line feeds; read as they are asked for."""
    try:
        with path.open("rb") as file:
            yield from decoded_lines(file, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def decoded_lines(stream: BinaryIO, where: str) -> Iterator[str]:
    r"""As `text_lines`, of what is open already. A line ends with `\n`, `\r\n` or `\r`, and with nothing else.

    Half a surrogate pair stays what it is: `pgkd_agent.text.well_formed` repairs it where it is counted.
    """
    start = stream.peek(4) if isinstance(stream, io.BufferedReader) else b""
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")
    is_utf8 = encoding.startswith("utf-8")
    text = io.TextIOWrapper(stream, encoding, "surrogateescape" if is_utf8 else "surrogatepass")
    number = 0
    try:
        for number, line in enumerate(text, 1):
            if "\0" in line or (is_utf8 and _UNDECODED.search(line)):
                line = _mended(line, f"{where}, line {number}")
            yield line
    except UnicodeDecodeError as error:
        raise DataError(f"{where}, after line {number}: not {encoding.upper()}, as it begins; it is damaged") from error
    finally:
        if not text.closed:
            text.detach()  # else it would close the stream, which is not its own


def _mended(line: str, where: str) -> str:
    """
    Raises:
        DataError: The line holds NUL, or more than halves of surrogate pairs that are no UTF-8.
    """
    if "\0" in line:
        wide = "UTF-16BE" if line.startswith("\0") else "UTF-16LE" if line[1::2].strip("\0") == "" else ""
        what = f"in {wide} without a mark" if wide else "binary or damaged"
        raise DataError(f"{where}: a NUL byte; the file is {what}: {_as_utf8(wide) if wide else 'expected UTF-8 text'}")
    content = line.encode("utf-8", "surrogateescape")
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        found = f"{where}: byte 0x{content[error.start]:02x} is not UTF-8"
        if _CONTROLS.search(line):
            raise DataError(f"{found}, and the file looks binary or packed: expected text (unpack it)") from error
        encoding = _likely_encoding(content)
        raise DataError(f"{found}; the file looks like {encoding}: {_as_utf8(encoding)}") from error


def _as_utf8(encoding: str) -> str:
    return f"save it as UTF-8 (iconv -f {encoding} -t UTF-8 FILE > NEW)"


def _likely_encoding(content: bytes) -> str:
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in Windows-1252
        return "ISO-8859-1"
    return "WINDOWS-1252"
