"""Texts that a student would learn the wrong thing from: they give their label away, or say one thing over and over.

Texts are in the form of `normalize`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pgkd_agent.text import label_key

_WORD = r"[\"'*_]*\b(?:label|class|category|intent|topic|class_label)[\"'*_]*\s*[:=]\s*[\"'*_]*"
_TEMPLATES = (
    rf"[\[(<{{]\s*{_WORD}NAME[\"'*_]*\s*[\])>}}]",  # anywhere: (label: lamp)
    rf"\A\W*{_WORD}NAME\b|\b{_WORD}NAME\W*\Z",  # label: lamp - it flickers
    r"\A[\W\d]*[\[(<{【]\s*NAME\s*[\])>}】]|[\[(<{【]\s*NAME\s*[\])>}】]\W*\Z",  # [lamp] it flickers
    r"\A[*_\"'`]*NAME[*_\"'`]*\s*(?:[:|](?!\S*\d)|\s[-\u2010-\u2015]+>?\s|=>|->|→)",  # lamp: it flickers
    r"(?:\s[-\u2010-\u2015]+>?|=>|->|→|\|)\s*[*_\"'`]*NAME\W*\Z",  # it flickers -> lamp
    r"\A([*_]{1,3})NAME\1|([*_]{1,3})NAME\2\W*\Z|(?:\A|\s)#NAME\Z|\A#NAME\b",  # **lamp** it flickers
)
_SEPARATORS = re.compile(r"[\s_\-/&,]+")

LEAST_LETTERS = 8
"""Of a text that is one part again and again; "no no no" is a text."""
LEAST_FOR_SHARE, LEAST_SHARE = 24, 0.3
"""Letters and share of distinct fours among all fours of letters. A text of 4,000 characters of English has 0.5."""


class Leaks:
    """Finds texts that give their label away: `[lamp] it flickers`, `it flickers (label: lamp)`, `lamp` alone.

    A label whose own training rows are so written is left alone.

    Args:
        names: All labels.
        resolve: From a text to the label that it is, or None.
    """

    def __init__(self, names: Iterable[str], resolve: Callable[[str], str | None]) -> None:
        self._patterns = {name: _pattern(name) for name in names}
        self._resolve = resolve
        self._natural: set[str] = set()

    def forget(self) -> None:
        """Begin with other training rows."""
        self._natural.clear()

    def learn(self, text: str, label: str) -> None:
        """Look at a training row."""
        if label in self._patterns and label not in self._natural and self._find(text, label):
            self._natural.add(label)

    def find(self, text: str, label: str) -> str | None:
        """What gives the label away; None where nothing does."""
        return None if label in self._natural else self._find(text, label)

    def _find(self, text: str, label: str) -> str | None:
        if found := self._patterns[label].search(text):
            return f"names its label: {found.group().strip()!r}"
        return "is the name of a class, and nothing else" if self._resolve(text) else None


def repetition(text: str) -> str | None:
    """Why a text says one thing over and over; None where it does not.

    A text of one part three times and more, or one with few distinct fours of letters, so that languages without
    spaces are treated alike.
    """
    letters = "".join(re.findall(r"\w", text)) or "".join(text.split())
    if len(letters) < LEAST_LETTERS:
        return None
    for length in range(1, len(letters) // 3 + 1):
        if letters.startswith(letters[length:]):
            return f"repeats {letters[:length]!r}" if length <= LEAST_FOR_SHARE else "repeats a part of it"
    fours = [letters[place : place + 4] for place in range(len(letters) - 3)]
    share = len(set(fours)) / len(fours)
    return f"repeats itself: {share:.0%} is new" if len(letters) >= LEAST_FOR_SHARE and share < LEAST_SHARE else None


def _pattern(name: str) -> re.Pattern[str]:
    words: Sequence[str] = [re.escape(word) for word in _SEPARATORS.split(label_key(name)) if word]
    form = r"[\s_\-/&,]+".join(words) or re.escape(label_key(name))
    return re.compile("|".join(f"(?:{template})" for template in _TEMPLATES).replace("NAME", form))
