from __future__ import annotations

import contextlib
import json
import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgkd_agent.config import GuardrailSettings
from pgkd_agent.loop.guardrails import Guardrails, LabelResolver
from pgkd_agent.loop.history import History
from pgkd_agent.teacher.prompting.parsing import parse_label, parse_samples
from pgkd_agent.types import GeneratedSample, Label

TEXTS = ["plain", "with {braces} and [brackets]", 'a "quote" \\ and\nbreak', "été 日本 🏀", "}, {", '"label": "x"']
REPLY = json.dumps({"samples": [{"text": text, "label": f"l{n}"} for n, text in enumerate(TEXTS)]}, ensure_ascii=False)
PAIRS = [(text, f"l{n}") for n, text in enumerate(TEXTS)]


def pairs(raw: str, default: str | None = None) -> list[tuple[str, str]]:
    return [(sample.text, sample.label) for sample in parse_samples(raw, default).samples]


@pytest.mark.parametrize(
    "reply", [REPLY, json.dumps(json.loads(REPLY), indent=2), json.dumps(json.loads(REPLY)["samples"])]
)
def test_of_every_prefix_only_whole_samples_are_kept(reply: str) -> None:
    counts = []
    for cut in range(len(reply)):
        found = pairs(reply[:cut])
        assert found == PAIRS[: len(found)], reply[:cut]
        counts.append(len(found))
    assert counts == sorted(counts) and counts[-1] == len(TEXTS)  # nothing whole is lost again
    assert pairs(reply) == PAIRS


ONE, TWO = '{"text": "one", "label": "a"}', '{"text": "two", "label": "b"}'
BOTH = [("one", "a"), ("two", "b")]


@pytest.mark.parametrize(
    "raw",
    [
        f"[{ONE}, {TWO}]",
        f"Sure! Here are {{two}} samples:\n[{ONE}, {TWO}]\nHope that helps.",
        f'```json\n{{"samples": [{ONE}, {TWO}]}}\n```',
        f'<think>maybe {ONE} or {{"text": "no", "label": "z"}}</think>[{ONE}, {TWO}]',
        f"{ONE}\n{TWO}\n",
        f"[{ONE}] and [{TWO}]",
        f'{{"samples": [{ONE}]}} {{"samples": [{TWO}]}}',
        f'{{"data": {{"n": 2}}, "training_samples": [{ONE}, {TWO}]}}',
        '[{"Sentence": "one", "Category": "a"}, {"UTTERANCE": "two", "intent": "b"}]',
    ],
)
def test_what_models_wrap_around_samples(raw: str) -> None:
    assert pairs(raw) == BOTH


IN_WORDS = json.dumps([json.loads(ONE), json.loads(TWO)])
LETTERS = LabelResolver([Label("a"), Label("b")])


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"samples": IN_WORDS}),  # as text
        json.dumps({"samples": [ONE, TWO]}),
        json.dumps(json.dumps({"samples": json.loads(IN_WORDS)})),
        f'{{"title": "Of both classes", "samples": {IN_WORDS}}}',
        f'{{"title": "Of a", "label": "a", "samples": [{{"text": "one"}}, {TWO}]}}',
        f'{{"count": 2, "meta": {{"model": "m"}}, "samples": {IN_WORDS}}}',
        '{"a": ["one"], "B": ["two"]}',
        '{"samples": {"a": [{"text": "one"}], "b": "two"}}',
        '{"text": ["one", "two"], "label": ["a", "b"]}',
        '{"samples": {"texts": ["one", "two"], "labels": ["a", "b"]}}',
        f'{{"1": {ONE}, "2": {TWO}}}',
        f"[{ONE}, {TWO},]",
        f"[{ONE}, // the first\n {TWO}, /* that is all */ # really\n]",
        "[{'text': 'one', 'label': 'a', 'checked': True}, {'text': 'two', 'label': 'b', 'note': None}]",
        "[{“text”: “one”, “label”: “a”}, {text: 'two', label: 'b'}]",
        f"```python\nsamples = [{ONE}]\n```\n```json\n{TWO}\n```",
    ],
)
def test_other_forms_of_the_same_samples(raw: str) -> None:
    parsed = parse_samples(raw, resolve=LETTERS)
    assert [(sample.text, sample.label) for sample in parsed.samples] == BOTH and parsed.num_malformed == 0


@pytest.mark.parametrize(
    "raw", ['{"samples": ["one", "two"]}', '["one", "two"]', '{"label": "a", "texts": ["one", "two"]}']
)
def test_texts_alone_are_of_the_class_that_was_asked_about(raw: str) -> None:
    assert pairs(raw, default="a") == [("one", "a"), ("two", "a")]
    assert parse_samples('["one", "two"]').num_malformed == 2


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (r'{"text": "it\'s one", "label": "a"}', "it's one"),
        (r'{"text": "C:\dir, \$5 and snake\_case", "label": "a"}', r"C:\dir, $5 and snake_case"),
        ('{"text": "he said "hi" to us", "label": "a"}', None),  # could end in several places
        ('{"text": "one", "label": "a"', None),
        ('{"text": NaN, "label": "a"}', None),
        ('{"text": "one", "label": {"a": 1}}', None),
        ("NaN", None),
    ],
)
def test_what_is_broken_is_mended_where_it_has_one_meaning_and_else_counted(broken: str, text: str | None) -> None:
    parsed = parse_samples(f"[{TWO}, {broken}, {TWO}]")
    assert [sample.text for sample in parsed.samples] == ["two", *([text] if text else []), "two"]
    assert parsed.num_malformed == (0 if text else 1)


@pytest.mark.parametrize("cut", ['{"te', '{"text": "tw', '{"text": "two", "lab'])
def test_a_sample_that_was_cut_is_counted(cut: str) -> None:
    parsed = parse_samples(f'{{"samples": [{ONE}, {cut}')
    assert [sample.text for sample in parsed.samples] == ["one"] and parsed.num_malformed == 1


@pytest.mark.parametrize(
    "raw",
    [
        f"draft {TWO}</think>{ONE}",
        f"<thinking>{TWO}</thinking>{ONE}",
        f"<|channel|>analysis<|message|>{TWO}<|end|><|channel|>final <|constrain|>json<|message|>{ONE}",
        f"<think>{TWO}</think> no, better {TWO} </reasoning>\n{ONE}",
        f"First a draft.\n<reasoning>{TWO}</reasoning>{ONE}<think>{TWO}",
    ],
)
def test_only_what_follows_the_last_thought_counts(raw: str) -> None:
    assert pairs(raw) == BOTH[:1]


def test_a_tag_within_a_text_ends_no_thought() -> None:
    assert pairs(f'[{ONE}, {{"text": "a </think> b", "label": "a"}}]') == [*BOTH[:1], ("a </think> b", "a")]
    assert pairs(f'[{ONE}, {{"text": "a </think> b') == BOTH[:1]
    assert pairs(f"draft {TWO}</think>") == []


def test_an_unfinished_thought_is_no_answer() -> None:
    assert pairs(f"<think>I could write {ONE}") == []
    assert pairs(f"<think>{ONE}</think>\n<think></think>{TWO}") == pairs(TWO)


@pytest.mark.parametrize("text", ["<think></think>so", "what does <think> mean", "</think>"])
def test_a_text_may_hold_what_models_mark_their_thoughts_with(text: str) -> None:
    assert pairs(json.dumps({"samples": [{"text": text, "label": "a"}]})) == [(text, "a")]


def test_raw_line_breaks_in_a_string_are_read() -> None:
    assert pairs('[{"text": "one\ntwo", "label": "a"}]') == [("one\ntwo", "a")]


def test_a_bad_sample_is_counted_and_costs_no_other() -> None:
    parsed = parse_samples(f'[{ONE}, {{"text": 5, "label": "a"}}, {{"label": "a"}}, "text", {{"text": "x"}}, {TWO}]')
    assert [(sample.text, sample.label) for sample in parsed.samples] == BOTH
    assert parsed.num_malformed == 4


def test_a_missing_label_is_that_of_the_request() -> None:
    assert pairs('[{"text": "one"}]', default="a") == [("one", "a")]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "I cannot do that.",
        "null",
        "[" * 99_999,
        '{"a":' * 50_000,
        "{ " * 50_000,
        "{'a" * 50_000,
        "[" * 990 + "]" * 990,
    ],
)
def test_nothing_readable_is_nothing_and_soon(raw: str) -> None:
    started = time.perf_counter()
    assert pairs(raw) == []
    assert time.perf_counter() - started < 60  # quadratic scanning would take many minutes


def test_digits_without_end_are_read_as_text() -> None:
    assert pairs(f'[{{"text": "a", "label": {"9" * 5000}}}, {TWO}]') == [("a", "9" * 5000), *pairs(TWO)]
    assert parse_label(f'"label": {"9" * 5000}', lambda written: None) is None


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ('{"class_label": "card_arrival"}', "card_arrival"),
        ('{"class_label": 3, "class_names": "Card arrival"}', "card_arrival"),
        ('{"class_label": "", "class_names": "card-arrival"}', "card_arrival"),
        ('{"class_label": "card_arrival", "class_names": "something else"}', "card_arrival"),
        ('"class_label": 7, "class_names": "card arrival"', "card_arrival"),  # as the paper's prompt spells it
        ('"class_label": "card_arrival", "class_names": ""', "card_arrival"),
        ('Sure!\n```json\n{"Class_Label": "12", "class_names": ["x"]}\n```', "12"),
        ('{"class_label": 12}', "12"),
        ('[{"class_label": "card_arrival"}]', "card_arrival"),
        ('<think>{"class_label": "12"}</think>{"class_label": "card_arrival"}', "card_arrival"),
        ("card arrival", "card_arrival"),
        ("`card_arrival`.", "card_arrival"),
        ('"None"', "None"),
        ('{"class_label": "card_arrival", "class_names": "12"}', None),  # two different labels
        ('{"class_names": ["card_arrival", "12"]}', None),
        ('{"class_label": null, "class_names": ""}', None),
        ('{"class_label": "lost"}', None),
        ("It is about card arrival, I think", None),
        ("", None),
    ],
)
def test_one_label_of_the_taxonomy_or_none(reply: str, label: str | None) -> None:
    resolve = LabelResolver([Label("card_arrival"), Label("12"), Label("None")])
    assert parse_label(reply, resolve) == label


RAILS = Guardrails(GuardrailSettings(), [Label("l0"), Label("l1"), Label("l2")])
MANY = [{"text": f'été {n} says "{n}" 日本 {{{n}}}', "label": f"l{n % 3}"} for n in range(32)]


def test_of_every_byte_prefix_of_a_long_reply_only_whole_samples_are_kept() -> None:
    reply = json.dumps({"samples": MANY}, ensure_ascii=False).encode()
    whole = [(sample["text"], sample["label"]) for sample in MANY]
    counts = []
    for cut in range(len(reply) + 1):
        found = pairs(reply[:cut].decode(errors="ignore"))
        assert found == whole[: len(found)], cut
        counts.append(len(found))
    assert counts == sorted(counts) and counts[-1] == 32


def decoded_strings(raw: str) -> set[str]:
    """All that a JSON decoder can read as a string, wherever in the reply it begins, backslashes left out.

    A backslash that begins no escape of JSON counts as one.
    """
    found = set()
    raw = re.sub(r"\\(.)", lambda pair: pair[0] if pair[1] in '"\\/bfnrtu' else f"\\{pair[0]}", raw, flags=re.DOTALL)
    for start, letter in enumerate(raw):
        if letter == '"':
            with contextlib.suppress(ValueError):
                found.add(json.decoder.scanstring(raw, start + 1, False)[0].replace("\\", ""))
    return found


GARBAGE = ['"', "\\", "{", "}", "[", "]", ",", ":", "null", "\n", "```", "<think>", "</think>", "\u2028", "\x00", "🏀"]


@st.composite
def mutated_replies(draw: st.DrawFn) -> str:
    """A reply of up to six samples, cut, doubled, spliced and sprinkled with what JSON trips over."""
    samples = draw(st.lists(st.sampled_from(MANY[:12]), min_size=1, max_size=6))
    wrapped = draw(st.sampled_from([{"samples": samples}, samples, {"a": 1, "data": samples}, samples[0]]))
    raw = json.dumps(wrapped, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
    for _ in range(draw(st.integers(1, 5))):
        at, to = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        kind = draw(st.sampled_from(["cut", "delete", "double", "insert", "replace", "swap"]))
        part = raw[at:to][:40]
        raw = {
            "cut": raw[:to],
            "delete": raw[:at] + raw[at + len(part) :],
            "double": raw[:at] + part + part + raw[at + len(part) :],
            "insert": raw[:at] + draw(st.sampled_from(GARBAGE)) + raw[at:],
            "replace": raw[:at] + draw(st.sampled_from(GARBAGE)) + raw[at + 1 :],
            "swap": raw[at + len(part) :] + raw[: at + len(part)],
        }[kind]
    return raw


@settings(max_examples=2000, suppress_health_check=list(HealthCheck))
@given(mutated_replies())
def test_whatever_became_of_a_reply_nothing_is_made_up(raw: str) -> None:
    parsed = parse_samples(raw)
    strings = decoded_strings(raw)
    read = [value.replace("\\", "") for sample in parsed.samples for value in (sample.text, sample.label)]
    assert all(value in strings for value in read)
    screened = RAILS.screen([GeneratedSample(s.text, s.label) for s in parsed.samples], History(()), frozenset())
    assert {item.label for item in screened.accepted} <= {"l0", "l1", "l2"}
    assert len(screened.accepted) + len(screened.rejected) == len(parsed.samples)
