from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from pgkd_agent.config import GuardrailSettings
from pgkd_agent.loop.guardrails import Guardrails, LabelResolver, Screened, class_cap
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.text import normalize
from pgkd_agent.types import Example, GeneratedSample, Label

TAXONOMY = (Label("card_not_working"), Label("Sci/Tech"), Label("sports"))
HISTORY = History.of([Example("My card is not accepted in any shop", "card_not_working")])
HELD_OUT = ["The rocket landed on the second attempt"]


def screen(
    *samples: tuple[str, str], shown: frozenset[str] = frozenset(), max_per_class: int | None = None
) -> Screened:
    guardrails = Guardrails(GuardrailSettings(), TAXONOMY, HELD_OUT, max_per_class=max_per_class)
    return guardrails.screen([GeneratedSample(*sample) for sample in samples], HISTORY, shown)


@pytest.mark.parametrize(
    ("text", "label", "rule"),
    [
        ("A new text about a game", "politics", "label"),
        ("  \n ", "sports", "empty"),
        ("ok", "sports", "length"),
        ("x" * 4001, "sports", "length"),
        ("a text THAT  was shown", "sports", "prompt_copy"),
        ("my card is NOT accepted  in any shop", "card_not_working", "duplicate"),
        ("My card is not accepted in many shops", "card_not_working", "near_duplicate"),
        ("The rocket landed on the second attempt!", "Sci/Tech", "held_out"),
    ],
)
def test_each_rule_names_its_rejection(text: str, label: str, rule: str) -> None:
    result = screen((text, label), shown=frozenset(["A text that was shown"]))
    assert [item.rule for item in result.rejected] == [rule] and not result.accepted
    assert result.rejected[0].reason and result.rejected_by_rule == {rule: 1}


def test_what_is_only_about_the_same_is_kept() -> None:
    assert screen(("The terminal refuses my new debit card every time", "card_not_working")).accepted


def test_a_batch_is_compared_with_itself() -> None:
    result = screen(("They won the final", "sports"), ("they won the final", "sports"))
    assert len(result.accepted) == 1 and result.rejected[0].rule == "duplicate"


def test_the_cap_counts_accepted_samples_per_class() -> None:
    texts = ["They won the final", "A marathon in the rain", "Swimmers broke two records"]
    result = screen(*((text, "sports") for text in texts), ("A probe reached Mars", "Sci/Tech"), max_per_class=2)
    assert [item.rule for item in result.rejected] == ["class_cap"]
    assert [item.label for item in result.accepted] == ["sports", "sports", "Sci/Tech"]
    assert len(screen(*((text, "sports") for text in texts)).accepted) == 3  # no limit where none is named


@pytest.mark.parametrize(("asked", "limit"), [(5, 16), (32, 16), (33, 16), (64, 32), (500, 250)])
def test_a_class_may_have_half_of_a_larger_batch(asked: int, limit: int) -> None:
    assert class_cap(asked) == limit


@pytest.mark.parametrize("written", ["Card not working", "card-not-working", "CARD_NOT_WORKING "])
def test_an_unambiguous_label_is_normalised(written: str) -> None:
    (accepted,) = screen(("The terminal refuses it every time", written)).accepted
    assert accepted.label == "card_not_working"


def test_an_ambiguous_label_is_not_guessed() -> None:
    resolve = LabelResolver((Label("A-B"), Label("A_B"), Label("c")))
    assert resolve("a b") is None and resolve("A-B") == "A-B" and resolve(" C") == "c"
    assert resolve("card") is None


def test_a_check_of_ones_own() -> None:
    extra = {"no_digits": lambda text, _label, _state: "has digits" if any(map(str.isdigit, text)) else None}
    guardrails = Guardrails(GuardrailSettings(), TAXONOMY, extra=extra)
    samples = [GeneratedSample("They won 3 games", "sports"), GeneratedSample("They won a lot", "sports")]
    result = guardrails.screen(samples, HISTORY, frozenset())
    assert result.rejected_by_rule == {"no_digits": 1} and len(result.accepted) == 1


@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["sports", "SPORTS", "sci tech", "", "zzz"]))))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_on_one_side_in_order(samples: list[tuple[str, str]]) -> None:
    result = screen(*samples)
    assert len(result.accepted) + len(result.rejected) == len(samples)
    assert {item.label for item in result.accepted} <= {label.name for label in TAXONOMY}
    order = [text.strip() for text, _ in samples]
    kept = iter(order)
    assert all(any(item.text == text for text in kept) for item in result.accepted)


def plain_verdict(text: str, known: list[str], held_out: list[str], ratio: float) -> tuple[str, str] | None:
    """The rules about other texts by their definition: compared with each one, none left out."""
    if text in known:
        return "duplicate", "already in the history"
    for rule, others in (("near_duplicate", known), ("held_out", held_out)):
        best = max((fuzz.ratio(text, other) for other in others), default=-1)
        if best >= ratio:
            return rule, f"{best:.0f} % alike to another row"
    return None


WORDS = st.lists(
    st.sampled_from(["Card", "card", "cards", "is", "IS", "not", "bank", "\u00e9t\u00e9", "a"]), min_size=2, max_size=7
)
LIKE_TEXTS = st.lists(WORDS.map(" ".join), max_size=8)


@given(LIKE_TEXTS, LIKE_TEXTS, st.lists(LIKE_TEXTS, max_size=3), st.sampled_from([0.0, 60.0, 85.0, 90.0, 100.0]))
@settings(max_examples=200, deadline=None)
def test_steps_over_a_growing_history_go_by_the_plain_definition(
    real: list[str], held_out: list[str], steps: list[list[str]], ratio: float
) -> None:
    guardrails = Guardrails(GuardrailSettings(near_duplicate_ratio=ratio), TAXONOMY, held_out)
    history = History.of([Example(text, "sports") for text in real])
    for kd_step, texts in enumerate(steps, 1):
        result = guardrails.screen([GeneratedSample(text, "sports") for text in texts], history, frozenset())
        known = [normalize(row.text) for row in history.rows]
        accepted, rejected = [], []
        for text in texts:
            verdict = plain_verdict(normalize(text), known, [normalize(other) for other in held_out], ratio)
            if verdict:
                rejected.append((text, *verdict))
            else:
                accepted.append(text)
                known.append(normalize(text))
        assert [item.text for item in result.accepted] == accepted
        assert [(item.text, item.rule, item.reason) for item in result.rejected] == rejected
        history = history.extended(HistoryRow(text, "sports", kd_step) for text in accepted)


def test_another_history_than_before_is_read_anew() -> None:
    guardrails = Guardrails(GuardrailSettings(), TAXONOMY)
    sample = [GeneratedSample("They won the final", "sports")]
    with_it = History.of([Example("They won the final", "sports"), Example("A probe reached Mars", "Sci/Tech")])
    without = History.of([Example("A probe reached Mars", "Sci/Tech")])
    for history, accepted in ((with_it, 0), (without, 1), (with_it, 0), (History(()), 1)):
        assert len(guardrails.screen(sample, history, frozenset()).accepted) == accepted
