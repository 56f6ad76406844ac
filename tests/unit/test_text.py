from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.text import normalize, shorten


@given(st.text())
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_case_width_and_white_space_do_not_matter() -> None:
    assert normalize("  STRASSE\t\N{FULLWIDTH DIGIT ONE}\n") == normalize("Straße 1")
    assert normalize("a b") != normalize("ab")


@given(st.text(), st.integers(20, 40))
def test_a_short_text_stays_and_a_long_one_keeps_its_beginning(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]) and len(text) > limit)
