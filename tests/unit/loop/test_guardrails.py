from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from pgkd_agent.config import GuardrailSettings
from pgkd_agent.loop.degenerate import repetition
from pgkd_agent.loop.guardrails import Guardrails, LabelResolver, Screened, class_cap
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.text import normalize, well_formed, without_controls
from pgkd_agent.types import Example, GeneratedSample, Label

TAXONOMY = (Label("card_not_working"), Label("Sci/Tech"), Label("sports"))
HISTORY = History.of([Example("My card is not accepted in any shop", "card_not_working")])
HELD_OUT = ["The rocket landed on the second attempt"]


def screen(*samples: tuple[str, str], shown: frozenset[str] = frozenset(), most: int | None = None) -> Screened:
    guardrails = Guardrails(GuardrailSettings(), TAXONOMY, HELD_OUT, most=most)
    return guardrails.screen([GeneratedSample(*sample) for sample in samples], HISTORY, shown)


@pytest.mark.parametrize(
    ("text", "label", "rule"),
    [
        ("A new text about a game", "politics", "label"),
        ("  \n ", "sports", "empty"),
        ("ok", "sports", "length"),
        ("x" * 4001, "sports", "length"),
        ("[sports] They won the final", "sports", "label_leak"),
        ("I'm sorry, I'm sorry, I'm sorry ...", "sports", "repetition"),
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
    words = [
        "won",
        "final",
        "marathon",
        "rain",
        "swimmers",
        "records",
        "goal",
        "keeper",
        "rowing",
        "stadium",
        "referee",
        "league",
        "serve",
        "relay",
    ]
    texts = [" ".join(pair) for pair in combinations(words, 2)][:18]
    result = screen(*((text, "sports") for text in texts), ("A probe reached Mars", "Sci/Tech"), most=20)
    assert [item.rule for item in result.rejected] == ["class_cap", "class_cap"]
    assert [item.label for item in result.accepted] == ["sports"] * 16 + ["Sci/Tech"]
    assert len(screen(*((text, "sports") for text in texts)).accepted) == 18  # no limit where none is named


def test_texts_that_were_there_are_not_judged_as_written_ones() -> None:
    texts = [f"sports: {word} {word} {word} {word} {word}" for word in ("ab", "cd", "ef", "gh")]
    rails = Guardrails(GuardrailSettings(), TAXONOMY, HELD_OUT, most=1)
    labelled = [GeneratedSample(text, "sports", 0, "labelled", (("sports", 1.0),)) for text in texts]
    result = rails.screen([*labelled, GeneratedSample(HELD_OUT[0], "sports", 0, "labelled")], HISTORY, frozenset())
    assert len(result.accepted) == 4 and result.accepted[0].shares == (("sports", 1.0),)
    assert [item.rule for item in result.rejected] == ["held_out"]


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


@pytest.mark.parametrize(
    "written",
    [
        "card\u2011not\u2011working", "card_not_\u200bworking", '"card_not_working"', "\u201ccard not working\u201d",
        "card_not_working.",
        "2. card_not_working", "3) Card not working", "**card_not_working**", "`card_not_working`.",
        "**card_not_working**.",
        "- card_not_working", "label: card_not_working", "**Label:** card_not_working", "**Label: card_not_working**.",
        "[card_not_working]", "\u300ccard_not_working\u300d", "\ufeffcard_not_working\x07",
    ],
)  # fmt: skip
def test_a_decorated_label_is_that_label(written: str) -> None:
    (accepted,) = screen(("The terminal refuses it every time", written)).accepted
    assert accepted.label == "card_not_working"


@pytest.mark.parametrize(
    ("labels", "written", "label"),
    [
        (["can\u2019t log in", "refund"], "can't log in", "can\u2019t log in"),
        (["can\u2019t log in", "can't log in"], "can`t log in", None),  # two that differ by that alone
        (["refund", "refund."], '"refund"', None),
        (["refund", "refund."], "refund.", "refund."),
        (["1. lamp", "lamp"], "2. lamp", None),
        (["1. lamp", "2. chair"], "3. chair", None),
        (["1. lamp", "2. chair"], '"2. chair"', "2. chair"),
        (["C#", "C++", "etc."], '"C#"', "C#"),
        (["C#", "C++", "etc."], "`etc.`", "etc."),
        (["12", "no"], "12.", "12"),
        (["lamp"], "a lamp", None),
        (["lamp"], "...", None),
        (["lamp"], "", None),
    ],
)
def test_nothing_is_guessed_about_a_decorated_label(labels: list[str], written: str, label: str | None) -> None:
    assert LabelResolver([Label(name) for name in labels])(written) == label


LAMP = (Label("lamp"), Label("desk_chair"))


def rules_over(text: str, label: str = "lamp", real: tuple[Example, ...] = ()) -> dict[str, int]:
    rails = Guardrails(GuardrailSettings(), LAMP)
    return rails.screen([GeneratedSample(text, label)], History.of(real), frozenset()).rejected_by_rule


@pytest.mark.parametrize(
    "text",
    [
        "[lamp] it flickers", "it flickers (label: lamp)", "lamp", "Lamp.", "Label: lamp - it flickers",
        "lamp: it flickers", "lamp | it flickers", "1. [lamp] it flickers", "it flickers [LAMP]",
        "lamp \u2014 it flickers", "**Lamp** it flickers", "it flickers #lamp", "it flickers -> lamp",
        "It flickers\nLabel: lamp", '{"text": "it flickers", "label": "lamp"}',
        "desk chair",
    ],
)  # fmt: skip
def test_a_text_that_gives_its_label_away_is_rejected(text: str) -> None:
    assert rules_over(text) == {"label_leak": 1}


@pytest.mark.parametrize(
    "text",
    [
        "my lamp flickers", "Lamp flickers a lot", "I need a lamp", "I bought it (lamp) today", "lamp-shade is broken",
        "what I want: a lamp", "the lamp: it flickers", "Lamp, chair and table arrived broken",
    ],
)  # fmt: skip
def test_the_name_of_a_class_in_natural_use_is_no_leak(text: str) -> None:
    assert rules_over(text) == {}


def test_what_training_rows_are_written_like_is_no_leak() -> None:
    real = (Example("Lamp: no light at all", "lamp"),)
    assert rules_over("lamp: it flickers", real=real) == {}
    assert rules_over("desk chair: it creaks", "desk_chair", real) == {"label_leak": 1}


@pytest.mark.parametrize(
    ("text", "is_repeated"),
    [
        ("aaaaaaaaaaaa", True),
        ("!!!!!!!!!!!!", True),
        ("good good good good", True),
        ("\u597d\u7684\u597d\u7684\u597d\u7684\u597d\u7684", True),
        ("Help: " + "I'm sorry, " * 8, True),
        ("It flickers. It flickers. It flickers.", True),
        ("no no no", False),
        ("very very very good", False),
        ("sooooooooo good, love it", False),
        ("Row, row, row your boat", False),
        ("where is my card where is my card", False),
        ("\u54c8\u54c8\u54c8\u54c8", False),
    ],
)
def test_one_thing_over_and_over_is_rejected(text: str, is_repeated: bool) -> None:
    assert rules_over(text) == ({"repetition": 1} if is_repeated else {})


def test_no_control_character_reaches_history_or_report() -> None:
    result = screen(
        ("They \x1b[31mwon\x00 the\x07 final\u202e", "sports"), ("\x1b]0;x\x07A \x00text", "po\x1b[1mlitics")
    )
    assert result.accepted[0].text == "They won the final"
    assert (result.rejected[0].label, result.rejected[0].rule) == ("politics", "label")
    assert all(char.isprintable() for char in result.rejected[0].text)


def test_a_step_keeps_no_more_than_it_asked_for_the_first_of_each_request() -> None:
    texts = [
        "They won the final",
        "A marathon in the rain",
        "Swimmers broke two records",
        "A tie in overtime",
        "No goals",
    ]
    rails = Guardrails(GuardrailSettings(), TAXONOMY, most=3)
    samples = [GeneratedSample(text, "sports", index) for text, index in zip(texts, (0, 0, 0, 1, 1), strict=True)]
    result = rails.screen(samples, HISTORY, frozenset())
    assert [row.text for row in result.accepted] == [texts[0], texts[1], texts[3]]
    assert [(item.text, item.rule) for item in result.rejected] == [(texts[n], "more_than_asked") for n in (2, 4)]


@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["sports", "SPORTS", "sci tech", "", "zzz"]))))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_on_one_side_in_order(samples: list[tuple[str, str]]) -> None:
    result = screen(*samples)
    assert len(result.accepted) + len(result.rejected) == len(samples)
    assert {item.label for item in result.accepted} <= {label.name for label in TAXONOMY}
    order = [well_formed(without_controls(text)).strip() for text, _label in samples]
    kept = iter(order)
    assert all(any(item.text == text for text in kept) for item in result.accepted)


def plain_verdict(text: str, known: list[str], held_out: list[str], ratio: float) -> tuple[str, str] | None:
    """The rules about other texts by their definition: compared with each one, none left out."""
    if why := repetition(text):
        return "repetition", why
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
