"""JSON as models write it: what is whole is read, what has one meaning only is mended, and the rest is counted.

Mended are trailing commas, comments, single and typographic quotes around strings, Python's constants, keys without
quotes, and a backslash before what needs none. A text with bare quotes in it could end in several places: it is not
guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


def _integer(digits: str) -> int | str:
    """A model that repeats itself writes thousands of digits, which Python refuses to make a number of."""
    return int(digits) if len(digits) < 1000 else digits


_DECODER = json.JSONDecoder(strict=False, parse_int=_integer)  # models put raw line breaks into strings
OPENING = re.compile(r"[\[{]")
_NAMES = "(?:think|thinking|thought|reasoning|reflection)"
_TAG = re.compile(rf"(?P<closes></{_NAMES}>|<\|channel\|>final\b.*?<\|message\|>)|<{_NAMES}>", re.IGNORECASE)
_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|“[^”]*”)
    |(?P<comment>//[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<sign>[\[\]{}:,])
    |(?P<word>[^\s\[\]{}:,"'“]+)
    |(?P<blank>\s+)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BROKEN = object()
_CONSTANTS = {"True": "true", "False": "false", "None": "null", "undefined": "null"}
_MOST_REREAD = 500_000
"""Characters of one reply that are read to mend what then cannot be mended; each bracket may cost all that follow."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An outermost array or object; `is_whole` is False for a bracket that could not be read to its end."""

    start: int
    end: int
    value: Any = None
    is_whole: bool = True


def pieces(text: str) -> Iterator[Piece]:
    """All outermost arrays and objects that can be read; of one that cannot, that it is there, and then its parts."""
    position, left = 0, _MOST_REREAD
    while opening := OPENING.search(text, position):
        start = opening.start()
        try:
            value, position = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError:
            value, position = _mended(text, start) if left > 0 else (_BROKEN, start)
            if value is _BROKEN:
                left -= position - start
                position = opening.end()
                yield Piece(start, position, is_whole=False)
                continue
        except RecursionError:  # a thousand brackets deep there is no sample, and each start costs as much again
            return
        yield Piece(start, position, value)


def without_thinking(raw: str) -> str:
    """A reply without what the model said to itself: what stands before the last closing tag, or after an open one.

    A tag inside an array or object that can be read is a part of a text. So is one in a string that never ends: there
    the reply was cut off.
    """
    if not _TAG.search(raw):
        return raw
    whole = [(piece.start, piece.end) for piece in pieces(raw) if piece.is_whole]
    tags = [tag for tag in _TAG.finditer(raw) if not any(start <= tag.start() < end for start, end in whole)]
    start = max((tag.end() for tag in tags if tag["closes"] and not _is_in_cut_string(raw, tag.start())), default=0)
    opened = next((tag.start() for tag in tags if not tag["closes"] and tag.start() >= start), len(raw))
    return raw[start:opened]


def _is_in_cut_string(raw: str, place: int) -> bool:
    """Whether a string begins before the place, as one of an object, and nothing after it ends it."""
    before, after = raw[:place], raw[place:]
    return '"' not in after and re.search(r'[:,\[{]\s*"(?:[^"\\]|\\.)*\Z', before, re.DOTALL) is not None


def _mended(text: str, start: int) -> tuple[Any, int]:
    """The value that begins here and its end; `_BROKEN` where it cannot be mended, and the end of what was read."""
    parts: list[str] = []
    depth, place = 0, start
    while token := _TOKEN.match(text, place):
        place = token.end()
        kind, written = token.lastgroup, token.group()
        if kind == "string":
            parts.append(_string(written))
        elif kind == "word":
            parts.append(_CONSTANTS.get(written, written))
        elif kind == "sign":
            if written in "]}" and parts[-1] == ",":
                parts.pop()
            if written == ":" and re.fullmatch(r"[^\W\d]\w*", parts[-1]):
                parts[-1] = f'"{parts[-1]}"'
            parts.append(written)
            depth += (written in "[{") - (written in "]}")
            if depth == 0:
                try:
                    return _DECODER.decode("".join(parts)), place
                except (json.JSONDecodeError, RecursionError):
                    return _BROKEN, place
    return _BROKEN, place


def _string(written: str) -> str:
    """A string of any quotes as one of JSON; a backslash counts where it begins an escape of JSON."""

    def escape(found: re.Match[str]) -> str:
        escaped = found[1]
        if escaped[0] in '"\\/bfnrtu':  # a broken \u stays one
            return found[0]
        return f"\\\\{escaped}" if escaped.isalnum() else escaped

    inner = _ESCAPE.sub(escape, written[1:-1])
    return f'"{inner}"' if written[0] == '"' else '"' + re.sub(r'(?<!\\)"', r"\\" + '"', inner) + '"'
