from __future__ import annotations

import json
import time

import pytest

from pgkd_agent.guardrails import LabelResolver
from pgkd_agent.teacher.parsing import parse_label, parse_samples
from pgkd_agent.types import Label

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


def test_an_unfinished_thought_is_no_answer() -> None:
    assert pairs(f"<think>I could write {ONE}") == []


def test_raw_line_breaks_in_a_string_are_read() -> None:
    assert pairs('[{"text": "one\ntwo", "label": "a"}]') == [("one\ntwo", "a")]


def test_a_bad_sample_is_counted_and_costs_no_other() -> None:
    parsed = parse_samples(f'[{ONE}, {{"text": 5, "label": "a"}}, {{"label": "a"}}, "text", {{"text": "x"}}, {TWO}]')
    assert [(sample.text, sample.label) for sample in parsed.samples] == BOTH
    assert parsed.num_malformed == 4


def test_a_missing_label_is_that_of_the_request() -> None:
    assert pairs('[{"text": "one"}]', default="a") == [("one", "a")]


@pytest.mark.parametrize("raw", ["", "I cannot do that.", "null", "[" * 100_000, '{"a":' * 50_000])
def test_nothing_readable_is_nothing_and_soon(raw: str) -> None:
    started = time.perf_counter()
    assert pairs(raw) == []
    assert time.perf_counter() - started < 60  # quadratic scanning would take many minutes


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
