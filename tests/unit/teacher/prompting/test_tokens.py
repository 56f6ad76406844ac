from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.teacher.prompting.tokens import estimate_tokens, most_tokens


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("The quick brown fox jumps over the lazy dog.", 9, 11),
        ('{"text": "where is my card?", "label": "card_arrival"}', 15, 22),
        ("2026-11-25", 8, 10),  # digits are tokens of their own in the vocabularies measured
        ("antidisestablishmentarianism", 4, 6),
        ("class        precision    recall", 5, 7),  # a run of spaces is one token
        ("ENTERTAINMENT", 3, 6),
        ("日本語のテキスト", 5, 10),
    ],
)
def test_what_vocabularies_make_of_it(text: str, low: int, high: int) -> None:
    assert low <= estimate_tokens(text) <= high


@given(st.text(max_size=200))
def test_never_more_than_the_bound_and_additive_by_lines(text: str) -> None:
    assert 0 <= estimate_tokens(text) <= most_tokens(text)
    assert most_tokens(text) == len(text.encode("utf-8"))
