"""The student first, a fallback for what it is unsure of: a real student, a real client, a loopback server."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from pgkd_agent import Cascade, StudentClassifier, open_llm
from pgkd_agent.cascade import Answer as Named
from pgkd_agent.cli import main
from pgkd_agent.config import build_config
from pgkd_agent.errors import ConfigError, TeacherUnavailableError
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Label, TokenUsage
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.openai_server import completion, failure, serve

TAXONOMY = tuple(Label(name) for name in TOPICS)


@dataclass(frozen=True)
class Texts:
    """Three that the student is less sure of than `threshold`, and 17 others."""

    unsure: list[str]
    sure: list[str]
    threshold: float


@pytest.fixture(scope="module")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    student = TorchStudent(tiny_config(tiny_student).student, TAXONOMY, seed=1)
    student.fit(sentences(20, 0), sentences(5, 1), 0)
    folder = tmp_path_factory.mktemp("cascade") / "model"
    student.save(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(model: Path) -> StudentClassifier:
    return StudentClassifier.load(model)


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

    flags = {"teacher.structured": "text", "teacher.max_attempts": 1}
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


def test_a_cap_leaves_the_rest_to_the_student(classifier: StudentClassifier, texts: Texts) -> None:
    with serve(lambda _call, _body: completion("animals")) as server:
        flags = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "budget.max_calls": 2}
        with open_llm(TAXONOMY, build_config(flags=flags)) as llm:
            cascade = Cascade(classifier, llm, texts.threshold, max_concurrency=1)
            routed = cascade.classify(texts.unsure)
    assert [item.source for item in routed] == ["fallback", "fallback", "student"]
    assert "max_calls" in routed[2].problem


def test_on_the_command_line(
    model: Path, texts: Texts, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new.txt"
    file.write_text("\n".join([texts.sure[0], *texts.unsure]), encoding="utf-8")

    def run(*arguments: object) -> tuple[list[dict[str, object]], str]:
        monkeypatch.setattr("sys.argv", ["pgkd", "classify", str(model), str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()], err

    rows, _ = run("--min-confidence", texts.threshold)
    assert rows[0]["label"] in TOPICS and [row["label"] for row in rows[1:]] == [None] * 3
    with serve(lambda _call, _body: completion("animals")) as server:
        options = ("--teacher", "openai:gpt-4o-mini", "--base-url", server.base_url, "--max-calls", 2)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        rows, err = run("--min-confidence", texts.threshold, *options)
    assert [row["source"] for row in rows].count("fallback") == 2
    assert (
        f"3 of 4 texts (75.0%) were below {texts.threshold:g}" in err and "failed for 1: 200 tokens in, 40 out" in err
    )
    assert "USD" in err


def test_as_a_tool_it_tells_an_agent_its_classes(classifier: StudentClassifier, texts: Texts) -> None:
    tool = classifier.as_tool()
    assert tool.name == "classify_text" and all(name in tool.description for name in TOPICS)
    found = json.loads(tool.invoke({"text": texts.sure[0]}))
    prediction = classifier.invoke(texts.sure[0])
    assert found == {"label": prediction.label, "confidence": pytest.approx(prediction.confidence, abs=1e-3)}
