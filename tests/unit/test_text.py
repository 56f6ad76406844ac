from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.text import label_key, normalize, shorten, well_formed, without_controls


@given(st.text())
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@given(st.text(st.sampled_from("ab \t\n\x1f\xa0\u2003\u200b\u3000")))
def test_runs_of_white_space_are_one_blank(text: str) -> None:
    assert normalize(text) == " ".join(normalize("x" + text + "x")[1:-1].split())


def test_case_width_and_white_space_do_not_matter() -> None:
    assert normalize("  STRASSE\t\N{FULLWIDTH DIGIT ONE}\n") == normalize("Straße 1")
    assert normalize("a b") != normalize("ab")


@given(st.text(), st.integers(20, 40))
def test_a_short_text_stays_and_a_long_one_keeps_its_beginning(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]) and len(text) > limit)


@given(st.text(st.characters(exclude_categories=())))
def test_well_formed_text_can_be_encoded_and_good_text_stays(text: str) -> None:
    assert well_formed(text).encode() is not None
    assert well_formed(well_formed(text)) == well_formed(text)
    if not any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        assert well_formed(text) == text
    assert well_formed("a\ud83d") == "a\ufffd" and well_formed("\ud83d\ude00") == "😀"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("can\u2019t log in", "can't log in"),
        ("follow\u2011up", "Follow-up"),
        ("re\u200bfund", "refund"),
        ("\ufeffrefund\u200f", "refund"),
        ("soft\u00adware", "software"),
        ("refund\ufe0f\u3164", "re\u034ffund\u2800"),
        ("5\u2212 10", "5- 10"),
        ("\u201cbest\u201d", '"best"'),
    ],
)
def test_spellings_of_one_label_share_a_key(one: str, other: str) -> None:
    assert label_key(one) == label_key(other)


@pytest.mark.parametrize(("one", "other"), [("c", "c++"), ("re-fund", "refund"), ("a b", "ab"), ("1", "10")])
def test_other_labels_do_not_share_a_key(one: str, other: str) -> None:
    assert label_key(one) != label_key(other)


@given(st.text())
def test_a_label_key_is_stable(label: str) -> None:
    assert label_key(label_key(label)) == label_key(label)


def test_controls_go_and_what_people_write_stays() -> None:
    assert without_controls("\x1b[31mred\x1b[0m \x07bell\x00\u202egnp") == "red bellgnp"
    assert without_controls("two\r\nlines\tand a tab 👩\u200d🔧") == "two\nlines\tand a tab 👩\u200d🔧"
