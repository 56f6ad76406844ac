"""The student first, a fallback for what it is unsure of: a real student, a real client, a loopback server."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda

from pgkd_agent import Cascade, StudentClassifier, open_llm
from pgkd_agent.answering.cascade import Answer as Named
from pgkd_agent.config import build_config
from pgkd_agent.errors import ConfigError, StorageError, TeacherContextError, TeacherUnavailableError
from pgkd_agent.types import Label, TokenUsage
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import completion, failure, serve

TAXONOMY = tuple(Label(name) for name in TOPICS)


@dataclass(frozen=True)
class Texts:
    """Three that the student is less sure of than `threshold`, and 17 others."""

    unsure: list[str]
    sure: list[str]
    threshold: float


@pytest.fixture(scope="module")
def texts(classifier: StudentClassifier) -> Texts:
    found = {row.text: classifier.invoke(row.text).confidence for row in sentences(5, 2)}
    ordered = sorted(found, key=found.__getitem__)
    low, high = found[ordered[2]], found[ordered[3]]
    assert high - low > 1e-4  # further apart than batches move them
    return Texts(ordered[:3], ordered[3:], (low + high) / 2)


def test_only_unsure_texts_are_asked_about_and_the_order_is_kept(classifier: StudentClassifier, texts: Texts) -> None:
    asked: list[str] = []
    lock = threading.Lock()

    def fallback(text: str) -> str:
        with lock:
            asked.append(text)
        return "Weather"  # resolves to a class

    cascade = Cascade(classifier, RunnableLambda(fallback), texts.threshold)
    mixed = [texts.unsure[0], *texts.sure[:3], *texts.unsure[1:], *texts.sure[3:]]
    routed = cascade.batch(mixed)
    assert sorted(asked) == sorted(texts.unsure)
    assert [item.source for item in routed] == ["fallback" if text in texts.unsure else "student" for text in mixed]
    assert {item.label for item, text in zip(routed, mixed, strict=True) if text in texts.unsure} == {"weather"}
    for item, prediction in zip(routed, classifier.classify(mixed), strict=True):
        assert item.student.label == prediction.label
        assert item.source == "fallback" or item.label == prediction.label
    assert (cascade.stats.texts, cascade.stats.fallbacks) == (len(mixed), 3)
    assert cascade.stats.fallback_share == pytest.approx(3 / len(mixed))
    assert cascade.invoke(texts.unsure[0]).source == "fallback" and cascade.stats.texts == len(mixed) + 1


@pytest.mark.parametrize(("threshold", "fallbacks"), [(0.0, 0), (1.0, 17)])
def test_a_threshold_of_0_never_asks_and_1_always(
    classifier: StudentClassifier, texts: Texts, threshold: float, fallbacks: int
) -> None:
    cascade = Cascade(classifier, RunnableLambda(lambda text: "fruit"), threshold)
    cascade.classify(texts.sure)
    assert cascade.stats.fallbacks == fallbacks


def test_a_fallback_without_a_label_leaves_that_of_the_student(classifier: StudentClassifier, texts: Texts) -> None:
    def fallback(text: str) -> Named | str | None:
        if text == texts.unsure[0]:
            raise TeacherUnavailableError("the provider is down")
        return "furniture" if text == texts.unsure[1] else Named(None, TokenUsage(7, 1))

    cascade = Cascade(classifier, RunnableLambda(fallback), texts.threshold)
    routed = cascade.classify(texts.unsure)
    assert [item.label for item in routed] == [item.label for item in classifier.classify(texts.unsure)]
    assert [item.source for item in routed] == ["student"] * 3
    assert "the provider is down" in routed[0].problem
    assert "'furniture'" in routed[1].problem and "no class" in routed[2].problem
    stats = cascade.stats
    assert (stats.fallbacks, stats.unresolved, stats.failed, stats.usage) == (3, 2, 1, TokenUsage(7, 1))


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_is_a_probability(classifier: StudentClassifier, threshold: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Cascade(classifier, RunnableLambda(str), threshold)


def test_an_llm_is_asked_with_the_zero_shot_prompt_and_one_failure_stops_nothing(
    classifier: StudentClassifier, texts: Texts, tmp_path: Path
) -> None:
    def answer(_call: int, body: dict[str, object]) -> object:
        prompt = str(body["messages"])
        return failure(400, "bad text") if texts.unsure[0] in prompt else completion('{"class_label": "animals"}')

    flags = {"teacher.structured": "text"}
    with serve(answer) as server:
        config = build_config(flags={**flags, "teacher.spec": "openai:m", "teacher.base_url": server.base_url})
        with open_llm(TAXONOMY, config, calls=tmp_path / "calls.sqlite") as llm:
            cascade = Cascade(classifier, llm, texts.threshold, max_concurrency=1)
            routed = cascade.classify(texts.unsure)
            assert [item.label for item in routed[1:]] == ["animals"] * 2  # after the failure
            assert "bad text" in routed[0].problem
            assert cascade.stats.usage == TokenUsage(200, 40)
            sent = len(server.requests)
            assert cascade.classify(texts.unsure[1:])[0].label == "animals"
            assert len(server.requests) == sent  # from the log


def test_equal_texts_are_asked_about_once(classifier: StudentClassifier, texts: Texts) -> None:
    asked: list[str] = []
    fallback = RunnableLambda(lambda text: asked.append(text) or Named("fruit", TokenUsage(5, 1)))
    cascade = Cascade(classifier, fallback, texts.threshold)
    routed = cascade.batch([texts.unsure[0]] * 3 + texts.unsure[1:])
    assert sorted(asked) == sorted(texts.unsure) and [item.label for item in routed] == ["fruit"] * 5
    assert cascade.stats.fallbacks == 5 and cascade.stats.usage == TokenUsage(15, 3)


def test_a_larger_student_can_stand_behind(classifier: StudentClassifier, texts: Texts) -> None:
    routed = Cascade(classifier, classifier, texts.threshold).batch([*texts.sure, *texts.unsure])
    assert {item.source for item in routed[-3:]} == {"fallback"} and not any(item.problem for item in routed)
    odd = Cascade(classifier, RunnableLambda(lambda text: ["fruit"]), texts.threshold).invoke(texts.unsure[0])
    assert odd.source == "student" and "answered with a list" in odd.problem


def test_callbacks_hear_of_the_fallback(classifier: StudentClassifier, texts: Texts) -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.names.append(kwargs["name"])

    fallback = RunnableLambda(lambda text: "fruit").with_config(run_name="the fallback")
    cascade = Cascade(classifier, fallback, texts.threshold)
    for ask in (
        lambda config: cascade.batch(texts.unsure, config),
        lambda config: cascade.invoke(texts.unsure[0], config),
    ):
        heard = Heard()
        ask({"callbacks": [heard]})
        assert "the fallback" in heard.names and "Cascade" in heard.names


def test_a_fallback_that_is_down_is_left_alone_for_a_while(classifier: StudentClassifier, texts: Texts) -> None:
    now, asked, is_down = 0.0, 0, True

    def fallback(text: str) -> str:
        nonlocal asked
        asked += 1
        if is_down:
            raise TeacherUnavailableError("down")
        return "fruit"

    cascade = Cascade(classifier, RunnableLambda(fallback), texts.threshold, 1, clock=lambda: now)
    for _ in range(4):
        problems = [item.problem for item in cascade.classify(texts.unsure)]
    assert asked == 5 and "left alone after 5 failures in a row, the last: down" in problems[-1]
    now, is_down = 61.0, False
    assert cascade.stats.failed == 12
    assert [item.source for item in cascade.classify(texts.unsure)] == ["fallback"] * 3
    assert asked == 8


def test_texts_that_are_too_long_say_nothing_of_the_provider(classifier: StudentClassifier, texts: Texts) -> None:
    def fallback(text: str) -> str:
        if text in texts.sure:
            raise TeacherContextError("too long")
        return "fruit"

    cascade = Cascade(classifier, RunnableLambda(fallback), 1.0, 2)
    routed = cascade.classify([*texts.sure, texts.unsure[0]])
    assert routed[-1].source == "fallback" and all("too long" in item.problem for item in routed[:-1])


def test_what_cannot_be_kept_is_an_error(classifier: StudentClassifier, texts: Texts) -> None:
    def fallback(text: str) -> str:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        Cascade(classifier, RunnableLambda(fallback), texts.threshold).classify(texts.unsure)


def test_a_cap_leaves_the_rest_to_the_student(classifier: StudentClassifier, texts: Texts) -> None:
    with serve(lambda _call, _body: completion("animals")) as server:
        flags = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "budget.max_calls": 2}
        with open_llm(TAXONOMY, build_config(flags=flags)) as llm:
            cascade = Cascade(classifier, llm, texts.threshold, max_concurrency=1)
            routed = cascade.classify(texts.unsure)
    assert [item.source for item in routed] == ["fallback", "fallback", "student"]
    assert "max_calls" in routed[2].problem


def test_on_the_command_line(model: Path, texts: Texts, tmp_path: Path) -> None:
    file = tmp_path / "new.txt"
    file.write_text("\n".join([texts.sure[0], *texts.unsure]), encoding="utf-8")
    command = ("classify", model, file, "--min-confidence", texts.threshold)
    rows = [json.loads(line) for line in pgkd(*command).stdout.splitlines()]
    assert rows[0]["label"] in TOPICS and [row["label"] for row in rows[1:]] == [None] * 3
    with serve(lambda _call, _body: completion("animals")) as server:
        done = pgkd(*command, "--teacher", "openai:gpt-4o-mini", "--base-url", server.base_url, "--max-calls", 2)
    assert [json.loads(line)["source"] for line in done.stdout.splitlines()].count("fallback") == 2
    assert done.returncode == 1  # a cap left one out
    said = " ".join(done.stderr.split())
    assert f"3 of 4 texts (75.0%) were below {texts.threshold:g}" in said
    assert "could not be asked about 1: 2 calls, 240 tokens" in said and "USD" in said
    (tmp_path / "labels.json").write_text('["fruit", "furniture"]')
    llm = ("--teacher", "openai:gpt-4o-mini")
    for wrong, words in (
        (("classify", model, file, *llm), "--min-confidence"),
        ((*command, "--max-usd", 1, "--calls", "x"), "--calls, --max-usd: only for --teacher"),
        ((*command, *llm, "--labels", tmp_path / "labels.json"), "differ in labels: animals, furniture"),
    ):
        refused = pgkd(*wrong)
        assert refused.returncode == 2 and words in " ".join(refused.stderr.split())


def test_what_an_llm_said_is_kept_for_the_same_command(model: Path, texts: Texts, tmp_path: Path) -> None:
    file = tmp_path / "new.txt"
    file.write_text("\n".join(texts.unsure), encoding="utf-8")
    with serve(lambda _call, _body: completion("animals")) as server:
        command = ("classify", model, file, "--min-confidence", texts.threshold, "--calls", tmp_path / "calls.sqlite")
        llm = ("--teacher", "openai:gpt-4o-mini", "--base-url", server.base_url)
        first, again = pgkd(*command, *llm), pgkd(*command, *llm)
        assert len(server.requests) == 3 and first.stdout == again.stdout
        assert (first.returncode, again.returncode) == (0, 0)
        assert "3 calls, 360 tokens" in first.stderr and "0 calls, 0 tokens, 0.0000 USD" in again.stderr


def test_as_a_tool_it_tells_an_agent_its_classes(classifier: StudentClassifier, texts: Texts) -> None:
    tool = classifier.as_tool()
    assert tool.name == "classify_text" and all(name in tool.description for name in TOPICS)
    found = json.loads(tool.invoke({"text": texts.sure[0]}))
    prediction = classifier.invoke(texts.sure[0])
    assert found == {"label": prediction.label, "confidence": pytest.approx(prediction.confidence, abs=1e-3)}
