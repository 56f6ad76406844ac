"""The normal forms in which texts and labels are compared, and the one way of cutting, cleaning and counting."""

from __future__ import annotations

import re
import unicodedata

_TYPOGRAPHIC = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4\u0060", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-")
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing and are not of category Cf: fillers, variation selectors, the blank of Braille."""
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85]")
_ESCAPES = re.compile("[\x1b\x9b]\\[?[0-9;?]*[A-Za-z]")


def normalize(text: str) -> str:
    """Unicode NFKC, case folded, runs of white space as one blank; idempotent."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    is_single_spaced = "  " not in folded and folded.isprintable()  # no white space but single blanks: most texts
    return folded.strip(" ") if is_single_spaced else " ".join(folded.split())


def label_key(label: str) -> str:
    """What two spellings of one label share: `normalize`, without invisible characters, with plain quotes and dashes.

    Invisible are those of Unicode's category Cf (zero-width spaces and joiners, direction marks, soft hyphens), fillers
    and variation selectors.
    """
    shown = _UNSEEN.sub("", label.translate(_TYPOGRAPHIC))
    visible = "".join(char for char in shown if unicodedata.category(char) != "Cf")
    return normalize(normalize(visible).translate(_TYPOGRAPHIC))  # a wide or folded form may be of a typographic sign


def without_controls(text: str) -> str:
    """The text without terminal escapes, control characters and direction overrides; tabs and line breaks stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", _LINE_ENDS.sub("\n", text)))


def well_formed(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair: no tokenizer or file takes one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shorten(text: str, max_chars: int) -> str:
    """The text, or its first characters with an ellipsis in the end: `max_chars` of them in all."""
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 row`, `2,000 rows`; a plural in -s where none is given."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
