"""Every file in examples/ at work, with scripted and loopback models and a student that trains in seconds."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import read_examples, read_taxonomy
from pgkd_agent.student.classifier import Prediction, StudentClassifier
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import tiny_config
from tests.integration.openai_server import completion, serve

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
DATA = EXAMPLES / "support_desk"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def samples(*texts_and_labels: tuple[str, str]) -> str:
    return json.dumps({"samples": [{"text": text, "label": label} for text, label in texts_and_labels]})


@pytest.fixture
def quick(tiny_student: Path) -> PGKDConfig:
    return tiny_config(tiny_student, **{"student.max_epochs": 1, "pgkd.num_kd_steps": 1})


@pytest.fixture(scope="module")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    student = TorchStudent(
        tiny_config(tiny_student, **{"student.max_epochs": 1}).student, read_taxonomy(DATA / "labels.json"), seed=1
    )
    rows = read_examples(DATA / "train.jsonl")
    student.fit(rows, rows[:50], 0)
    folder = tmp_path_factory.mktemp("examples") / "model"
    student.save(folder)
    return folder


class Sure:
    """Stands in for a student whose answer is known."""

    def __init__(self, label: str, confidence: float = 0.9) -> None:
        self._prediction = Prediction(label, confidence, {label: confidence})

    def invoke(self, _text: str) -> Prediction:
        return self._prediction


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_each_says_how_it_is_called(script: Path) -> None:
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    assert f"python examples/{script.name}" in script.read_text(encoding="utf-8")
    assert f"[`{script.name}`]({script.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_the_chain_instructs_by_intent(model: Path) -> None:
    example = load("intent_chain")
    classifier = StudentClassifier.load(model)
    with ScriptedChatModel(["I am sorry."]) as llm:
        assert example.build_chain(classifier, llm).invoke("The glass was broken.") == "I am sorry."
    label = classifier.invoke("The glass was broken.").label
    assert example.INSTRUCTIONS.get(label, example.OTHERWISE) in llm.prompt_text
    assert "The glass was broken." in llm.prompt_text
    with ScriptedChatModel(["A photo, please."]) as llm:
        sure = RunnableLambda(lambda text: Prediction("damaged_item", 1.0, {"damaged_item": 1.0}))
        example.build_chain(sure, llm).invoke("In pieces.")
    assert "photo of the damage" in llm.prompt_text


@pytest.mark.parametrize(
    ("student", "answered"),
    [
        (Sure("password_reset"), "small"),
        (Sure("password_reset", 0.4), "large"),
        (Sure("billing_dispute"), "large"),
    ],
)
def test_the_router_takes_the_small_model_where_it_is_sure_of_an_easy_intent(student: Sure, answered: str) -> None:
    example = load("router_middleware")
    small, large = ScriptedChatModel(["small"]), ScriptedChatModel(["large"])
    agent = create_agent(large, middleware=[example.Router(student, small)])
    assert agent.invoke({"messages": [HumanMessage("How do I change it?")]})["messages"][-1].text == answered
    assert len(small.prompts) + len(large.prompts) == 1


def test_the_cascade_compares_with_the_student_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {row.text: row.label for row in read_examples(DATA / "test.jsonl")}

    def answer(_call: int, body: dict[str, Any]) -> Any:
        text = next(text for text in labels if text in body["messages"][0]["content"])
        return completion(json.dumps({"class_label": labels[text]}))

    example = load("cascade")
    with serve(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        alone, together, stats = example.compare(model, DATA / "test.jsonl", "openai:m", 1.0, 20)
    assert together == 1.0 > alone
    assert (stats.texts, stats.fallbacks, stats.failed) == (20, 20, 0)


def test_the_guardrail_rejects_contact_data_and_nothing_else(quick: PGKDConfig) -> None:
    example = load("custom_guardrail")
    reply = samples(
        ("Please ring me on 0171 555 0123, the parcel is late", "delivery_delay"),
        ("Write to anna@example.org about my refund", "refund_request"),
        ("My two lamps of model 300 flicker since May", "warranty_repair"),
    )
    with ScriptedChatModel([reply]) as teacher:
        result = example.run(quick, teacher)
    assert result.summary.samples.rejected == {"contact_data": 2} and result.summary.samples.accepted == 1


def test_the_prompt_passes_its_check_and_is_what_the_teacher_reads(tiny_student: Path, quick: PGKDConfig) -> None:
    example = load("custom_prompt")
    assert not [finding for finding in example.lint_prompt(str(example.PROMPT)) if finding.is_error]
    flags = {"student.name": str(tiny_student), "student.max_epochs": 1, "pgkd.pgkd_batch_size": 2}
    with serve(
        lambda call, _body: completion(samples((f"a lamp that hums, number {call}", "warranty_repair")))
    ) as server:
        result = example.run(
            str(example.PROMPT), **{**flags, "teacher.spec": "openai:m", "teacher.base_url": server.base_url}
        )
    assert "as customers of a lamp shop send them" in json.dumps(server.requests[0]["messages"])
    assert result.summary.samples.asked == 4


def test_the_teachers_chain_works_by_itself_and_tells_a_callback(capsys: pytest.CaptureFixture[str]) -> None:
    example = load("teacher_chain")
    with serve(lambda call, _body: completion(samples((f"in pieces, number {call}", "damaged_item")))) as server:
        flags = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url}
        first, second = example.write("damaged_item", **flags)
    assert [sample.text for sample in (*first.samples, *second.samples)] == [
        "in pieces, number 0",
        "in pieces, number 1",
    ]
    assert first.reply.usage.input_tokens == 100
    assert capsys.readouterr().out == "KD step 1: openai:m, 120 tokens\nKD step 2: openai:m, 120 tokens\n"
    assert "as customers of a lamp shop send them" in json.dumps(server.requests[0]["messages"])
    assert len({body["seed"] for body in server.requests}) == 2


def test_the_teacher_without_an_llm_writes_for_weak_classes(quick: PGKDConfig) -> None:
    example = load("custom_teacher")
    result = example.run(quick)
    assert result.summary.samples.asked == 4 and result.summary.samples.parsed == 4
    report = result.training.steps[0].validation.report
    f1 = {row.label: row.f1 for row in report.classes}
    written = {row.label for row in result.training.history.rows if row.kd_step}
    assert written and max(f1[label] for label in written) <= sorted(f1.values())[len(f1) // 2]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_needs_no_more_than_the_public_names(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("pgkd_agent")} <= {"pgkd_agent", "pgkd_agent.testing"}


def test_texts_are_labelled_by_a_teacher_that_knows(quick: PGKDConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("label_texts")
    gold = {row.text: row.label for row in example.ROWS}

    def answer(_call: int, body: dict[str, Any]) -> Any:
        asked = json.loads(body["messages"][-1]["content"].splitlines()[-1])["text"]
        return completion(json.dumps({"class_label": gold[asked]}))

    with serve(answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        settings = {"teacher.spec": "openai:m", "pgkd.pgkd_batch_size": 0, "pgkd.labels_per_step": 8}
        result = example.run(quick.changed(settings))
        num, share = example.share_right(result)
    assert len(server.requests) == 64 + 8
    assert num <= 8 and (not num or share == 1), "of texts whose class is no candidate none is named"
