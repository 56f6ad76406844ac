"""The one normal form in which texts and labels are compared, and the one way of cutting long ones."""

from __future__ import annotations

import unicodedata


def normalize(text: str) -> str:
    """Unicode NFKC, case folded, runs of white space as one blank; idempotent."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    is_single_spaced = "  " not in folded and folded.isprintable()  # no white space but single blanks: most texts
    return folded.strip(" ") if is_single_spaced else " ".join(folded.split())


def well_formed(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair: no tokenizer or file takes one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shorten(text: str, max_chars: int) -> str:
    """The text, or its first characters with an ellipsis in the end: `max_chars` of them in all."""
    return text if len(text) <= max_chars else text[: max_chars - 1].rstrip() + "…"
