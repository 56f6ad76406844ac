from __future__ import annotations

import math

import pytest

from pgkd_agent.teacher.prompting.likelihood import LEAST_CHANCE, chances
from pgkd_agent.types import Alternatives

NAMES = ("card_arrival", "card", "lost", "card_linking", "none of these")


def places(*tokens: dict[str, float]) -> Alternatives:
    return tuple(tuple((token, math.log(chance)) for token, chance in place.items()) for place in tokens)


OPENING, CLOSING = {'{"class_label":': 1.0}, {'"}': 1.0}


def test_the_tokens_of_other_answers_have_their_probability() -> None:
    reply = places(
        OPENING,
        {' "': 1.0},
        {"card": 0.6, "lost": 0.2, " lost": 0.06, "none": 0.14},
        {"_arr": 0.5, '"': 0.3, "_link": 0.2},
        {"ival": 1.0},
        CLOSING,
    )
    found = dict(zip(NAMES, chances(reply, "card_arrival", NAMES), strict=True))
    assert found == pytest.approx(
        {"card_arrival": 0.3, "card": 0.18, "lost": 0.26, "card_linking": 0.12, "none of these": 0.14}
    )


def test_answers_that_begin_alike_share_what_was_not_followed() -> None:
    reply = places(OPENING, {' "lost': 0.7, ' "card': 0.3, " 'lost": 0.03}, CLOSING)
    found = chances(reply, "lost", NAMES)
    assert found == pytest.approx((0.1, 0.1, 0.7, 0.1, LEAST_CHANCE))


def test_a_shorter_answer_is_told_from_one_that_goes_on_by_what_ends_it() -> None:
    reply = places(OPENING, {' "': 1.0}, {"card": 1.0}, {'"}': 0.9, "_arrival": 0.1})
    found = dict(zip(NAMES, chances(reply, "card", NAMES), strict=True))
    assert found["card"] == pytest.approx(0.9) and found["card_arrival"] == pytest.approx(0.1, rel=0.01)


def test_what_a_grammar_forbade_does_not_count() -> None:
    """A model that would rather have said something else has probabilities of the answers all the same."""
    reply = places(OPENING, {' "': 1.0}, {"lost": 2e-6, "card": 1e-6, "The": 0.99}, CLOSING)
    assert chances(reply, "lost", ("lost", "card")) == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.parametrize("end", ["<|im_end|>", ".", "\n"])
def test_a_bare_answer_keeps_its_own_probability_whatever_ends_it(end: str) -> None:
    reply = places({"card": 0.9, "lost": 0.1}, {end: 0.95, "_arrival": 0.05})
    found = dict(zip(NAMES, chances(reply, "card", NAMES), strict=True))
    assert found["card"] == max(found.values()) and found["lost"] == pytest.approx(0.1, rel=0.05)


def test_a_name_in_the_key_or_in_a_stop_token_is_not_the_answer() -> None:
    reply = places({'{"class': 1.0}, {'": "': 1.0}, {"lost": 0.8, "class": 0.2}, {'"}': 1.0}, {"<|end|>": 1.0})
    assert chances(reply, "lost", ("lost", "class", "end")) == pytest.approx((0.8, 0.2, LEAST_CHANCE))
    assert chances(places({'{"class_label": "Class"}': 1.0}), "class", ("class", "lost")) == ()


def test_a_plain_answer_has_them_too() -> None:
    assert chances(places({"lost": 0.8, "card": 0.2}), "lost", ("lost", "card")) == pytest.approx((0.8, 0.2))


def test_names_are_found_as_json_spells_them() -> None:
    reply = places(OPENING, {' "': 1.0}, {"the": 0.8, "an": 0.2}, {' \\"': 1.0}, {"old": 1.0}, {'\\"': 1.0}, CLOSING)
    assert chances(reply, 'the "old"', ('the "old"', 'an "old"')) == pytest.approx((0.8, 0.2))


def test_without_probabilities_or_in_another_spelling_there_are_none() -> None:
    assert chances((), "lost", NAMES) == ()
    assert chances(places(OPENING, {' "Lost': 1.0}, CLOSING), "lost", NAMES) == ()
