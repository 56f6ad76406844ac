"""The one normal form in which texts and labels are compared."""

from __future__ import annotations

import unicodedata


def normalize(text: str) -> str:
    """Unicode NFKC, case folded, runs of white space as one blank; idempotent."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())
