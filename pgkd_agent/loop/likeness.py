"""Find the texts that may be as like another as a cutoff asks, without comparing it with each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BINS = 47
"""Characters are counted by their code point modulo this: small letters, blank, comma, full stop and apostrophe then
have a bin of their own each."""

BLOCK_CHARS = 60_000
"""Characters counted at a time; what that takes stays in the processor's cache."""


class TextIndex:
    """Texts, found again by what a ratio (`rapidfuzz.fuzz.ratio`) of at least a cutoff implies.

    A ratio r of texts with m and n characters means d = (m + n)(1 - r / 100) characters inserted and deleted. Each
    changes the length by one, and the count of one character by one, so lengths and counts (of characters, or of sets
    of them) that differ by more than d rule a text out.

    Memory: 51 bytes a text, and a reference to it; `extend` takes the same once more while it runs.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._texts: list[str] = []
        self._lengths = np.zeros(0, dtype=np.int32)  # ascending
        self._counts = np.zeros((BINS, 0), dtype=np.uint8)  # a column a text; a count over 255 is 255
        self.extend(texts)

    def __len__(self) -> int:
        return len(self._texts)

    def extend(self, texts: Sequence[str]) -> None:
        if not texts:
            return
        lengths = np.concatenate([self._lengths, np.fromiter(map(len, texts), np.int32, len(texts))])
        order = np.argsort(lengths, kind="stable")
        all_texts = [*self._texts, *texts]
        self._texts = [all_texts[position] for position in order.tolist()]
        self._lengths = lengths[order]
        self._counts = np.concatenate([self._counts, *map(_counts, _blocks(texts))], axis=1)[:, order]

    def candidates(self, text: str, cutoff: float) -> list[str]:
        """Every text whose ratio with `text` is at least `cutoff` (0 to 100), and few others."""
        share = 1 - cutoff / 100
        length = len(text)
        # One edit more than the cutoff allows everywhere below: no rounding may lose a text.
        first = np.searchsorted(self._lengths, (length * (1 - share) - 1) / (1 + share), side="left")
        most = (length * (1 + share) + 1) / (1 - share) if share < 1 else np.inf
        window = slice(int(first), int(np.searchsorted(self._lengths, most, side="right")))
        counts, own = self._counts[:, window], _counts([text])
        differences = (np.maximum(counts, own) - np.minimum(counts, own)).sum(axis=0, dtype=np.int32)
        close = differences <= (self._lengths[window] + length) * share + 1
        return [self._texts[window.start + position] for position in np.flatnonzero(close)]


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in runs of about `BLOCK_CHARS` characters."""
    start = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= BLOCK_CHARS or end == len(texts):
            yield texts[start:end]
            start, size = end, 0


def _counts(texts: Sequence[str]) -> np.ndarray:
    """Characters per bin, shape (BINS, n_texts)."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    bins = codes % BINS
    bins += np.repeat(np.arange(len(texts), dtype=np.uint32) * BINS, list(map(len, texts)))
    counts = np.bincount(bins, minlength=len(texts) * BINS)
    return counts.reshape(len(texts), BINS).clip(max=255).astype(np.uint8).T
