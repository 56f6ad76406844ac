from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from pgkd_agent.loop import likeness
from pgkd_agent.loop.likeness import TextIndex

CHARACTERS = st.sampled_from([*"aab cd.,'", "é", "好", "\ud800", "😀", "\0"])
TEXTS = st.lists(st.text(CHARACTERS, max_size=24), max_size=25)


@given(TEXTS, TEXTS, st.text(CHARACTERS, max_size=24), st.sampled_from([0, 1, 33.3, 50, 75, 90, 99.9, 100]))
@settings(max_examples=300, deadline=None)
def test_no_text_that_is_like_enough_is_lost(first: list[str], then: list[str], text: str, cutoff: float) -> None:
    index = TextIndex(first)
    index.extend(then)
    found = index.candidates(text, cutoff)
    like = [other for other in (*first, *then) if fuzz.ratio(text, other) >= cutoff]
    assert len(index) == len(first) + len(then)
    assert all(found.count(other) >= like.count(other) for other in like)
    assert set(found) <= {*first, *then}


@pytest.mark.parametrize("length", [40, 200, 3000])
def test_texts_right_at_the_cutoff_are_found(length: int) -> None:
    generator = random.Random(length)
    text = "".join(generator.choices("etaoin shrdlu", k=length))
    edits = length // 10
    replaced = [*text]
    for position in generator.sample(range(length), edits):
        replaced[position] = "#"
    shorter = text[: -2 * edits]
    longer = text + "z" * edits
    for other in ("".join(replaced), shorter, longer):
        cutoff = fuzz.ratio(text, other)
        assert TextIndex([other]).candidates(text, cutoff) == [other]
        assert TextIndex([other]).candidates(text, min(cutoff + 8, 100)) == []


def test_unrelated_texts_of_one_length_are_ruled_out() -> None:
    generator = random.Random(0)
    texts = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz ", k=60)) for _ in range(500)]
    assert TextIndex(texts).candidates(texts[0], 90) == [texts[0]]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'ab' * (number % 7)} row {number}" for number in range(50)]
    whole = TextIndex(texts)
    monkeypatch.setattr(likeness, "BLOCK_CHARS", 30)
    parts = TextIndex(texts)
    assert all(whole.candidates(text, 60) == parts.candidates(text, 60) for text in texts)
    assert TextIndex().candidates("a text", 0) == []
