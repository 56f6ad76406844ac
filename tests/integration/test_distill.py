"""Whole distillations: a small student, teachers behind a script, a loopback server and llama.cpp."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

import pgkd_agent
from pgkd_agent import StudentClassifier, distill, resume
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import (
    ConfigError,
    DataError,
    TeacherContextError,
    TeacherOutputError,
    TeacherUnavailableError,
)
from pgkd_agent.loop.guardrails import ScreenState
from pgkd_agent.runs.stored import read_run
from pgkd_agent.runs.summary import TeacherUsage
from pgkd_agent.teacher.calls.calling import Caller
from pgkd_agent.teacher.prompting.templates import list_prompts
from pgkd_agent.testing import ScriptedChatModel
from pgkd_agent.types import Example
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import completion, failure, serve

MODELS = ("before", "after")
TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)


def reply(*texts: tuple[str, str]) -> str:
    return json.dumps({"samples": [{"text": text, "label": label} for text, label in texts]})


FIRST = reply(
    ("fresh mango and lemon from the market", "fruit"),
    ("pass me that wrench and the pliers", "Tools"),  # the label needs normalising
    (TRAIN[0].text, TRAIN[0].label),  # a copy
    ("a spaceship on mars", "space"),  # not in the taxonomy
)
SECOND = reply(
    ("goat and sheep in a wide green field", "animals"),
    ("hail, then thunder all night", "weather"),
    (TRAIN[0].text, TRAIN[0].label),  # a copy
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_run_directory_tells_the_whole_story(config: PGKDConfig, tmp_path: Path) -> None:
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        result = distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=tmp_path / "run")
    run = tmp_path / "run"
    steps = rows_of(run / "steps.jsonl")
    assert [step["kd_step"] for step in steps] == [0, 1, 2]
    assert [step["accepted"] for step in steps] == [0, 2, 2]
    assert steps[1]["rejected"].keys() == {"label", "prompt_copy"} or steps[1]["rejected"].keys() == {
        "label",
        "duplicate",
    }
    history = rows_of(run / "history.jsonl")
    assert [row["kd_step"] for row in history[len(TRAIN) :]] == [1, 1, 2, 2]
    assert history[len(TRAIN) + 1]["label"] == "tools"
    assert {row["reason"] for row in rows_of(run / "rejected.jsonl")} >= {"'space' is not in the taxonomy"}
    best = min(steps, key=lambda step: step["validation"]["loss"])["kd_step"]
    outcome = json.loads((run / "result.json").read_text())
    assert outcome["best_step"] == result.training.best_step == best
    assert outcome["test"]["after"]["report"]["n_rows"] == len(TEST)
    assert outcome["samples"] == {
        "asked": 8,
        "parsed": 7,
        "accepted": 4,
        "malformed": 0,
        "refused": 0,
        "rejected": outcome["samples"]["rejected"],
    }
    meta = json.loads((run / "meta.json").read_text())
    assert meta["versions"]["torch"] and len(meta["prompt"]["sha256"]) == 64
    assert yaml.safe_load((run / "config.yaml").read_text())["student"]["learning_rate"] == 5e-3
    with sqlite3.connect(run / "calls.sqlite") as calls:
        assert [row[0] for row in calls.execute("SELECT reply FROM calls ORDER BY id")] == [FIRST, SECOND]
    calls.close()
    saved = StudentClassifier.load(run / "models" / "best", device="cpu")
    texts = [row.text for row in TEST]
    assert [item.label for item in saved.batch(texts)] == [item.label for item in result.classifier.batch(texts)]
    predictions = rows_of(run / "predictions.jsonl")
    assert [row["after"] for row in predictions] == [item.label for item in saved.batch(texts)]
    right = [sum(row[model] == real.label for row, real in zip(predictions, TEST, strict=True)) for model in MODELS]
    assert [count / len(TEST) for count in right] == [outcome["test"][m]["report"]["accuracy"] for m in MODELS]
    assert all(1 / len(TOPICS) <= row[f"{model}_confidence"] <= 1 for row in predictions for model in MODELS)
    assert not list(run.rglob("*.new"))


@pytest.mark.parametrize("variant", [name for name in list_prompts() if name != "agent"])
def test_no_validation_or_test_text_reaches_a_prompt(tiny_student: Path, variant: str) -> None:
    def marked(rows: list[Example]) -> list[Example]:
        return [Example(f"{row.text} canary{number}", row.label) for number, row in enumerate(rows)]

    config = tiny_config(tiny_student, **{"teacher.prompt": variant, "teacher.samples_per_request": 4})
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        distill(TRAIN, marked(VALIDATION), marked(TEST), teacher=teacher, config=config)
    assert len(teacher.prompts) == 2
    assert "canary" not in teacher.prompt_text
    assert any(row.text in teacher.prompt_text for row in TRAIN)


def test_a_prompt_of_ones_own_comes_before_the_package(tiny_student: Path, tmp_path: Path) -> None:
    (tmp_path / "pgkd").mkdir()
    (tmp_path / "pgkd" / "paper.j2").write_text("My words: {{ num_samples }} of {{ taxonomy }}", encoding="utf-8")
    flags = {"teacher.prompt": "paper", "teacher.prompt_folder": tmp_path, "pgkd.num_kd_steps": 1}
    with ScriptedChatModel([FIRST]) as teacher:
        distill(TRAIN, VALIDATION, teacher=teacher, config=tiny_config(tiny_student, **flags))
    assert teacher.prompt_text.startswith("My words: 4 of [")


def test_a_step_without_an_accepted_sample_keeps_the_model(config: PGKDConfig) -> None:
    copies = reply(*((row.text, row.label) for row in TRAIN[:4]))
    with ScriptedChatModel([copies, copies]) as teacher:
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    assert [step.epochs for step in result.training.steps[1:]] == [0, 0]
    assert result.training.best_step == 0 and "not one sample" in result.summary.verdict
    assert len(result.training.history) == len(TRAIN)


def test_named_arguments_override_the_settings(config: PGKDConfig, tiny_student: Path, tmp_path: Path) -> None:
    other = config.changed({"student.name": "no such student", "teacher.spec": "openai:none"})
    result = distill(
        TRAIN,
        VALIDATION,
        student=str(tiny_student),
        teacher="local:smollm2",
        steps=0,
        seed=7,
        config=other,
        out=tmp_path / "run",
    )
    stored = read_run(tmp_path / "run").config
    assert (stored.student.name, stored.pgkd.num_kd_steps, stored.seed) == (str(tiny_student), 0, 7)
    assert stored.teacher.spec == "local:smollm2" and stored.evidence == other.evidence
    assert len(result.training.steps) == 1 and result.summary.test is None


def test_checks_of_ones_own_reject_and_belong_to_the_run(config: PGKDConfig, tmp_path: Path) -> None:
    def no_goats(text: str, label: str, state: ScreenState) -> str | None:
        return "holds a goat" if "goat" in text else None

    run = tmp_path / "run"
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config, out=run, checks={"no_goats": no_goats})
    assert result.summary.samples.rejected["no_goats"] == 1
    assert any(row["rule"] == "no_goats" and row["reason"] == "holds a goat" for row in rows_of(run / "rejected.jsonl"))
    with pytest.raises(ConfigError, match="made with checks"):
        resume(run, teacher)
    assert resume(run, teacher, checks={"no_goats": no_goats}).training.best_step == result.training.best_step
    with pytest.raises(ConfigError, match="named duplicate as built-in"):
        distill(TRAIN, VALIDATION, teacher=teacher, config=config, checks={"duplicate": no_goats})


def test_an_unreadable_reply_is_asked_again_with_the_reason(config: PGKDConfig) -> None:
    with ScriptedChatModel(["Sure! Here you go.", FIRST, SECOND]) as teacher:
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    again = teacher.prompts[1]
    assert again[-2].text == "Sure! Here you go."
    assert "No sample could be read" in again[-1].text
    assert [step.num_requests for step in result.training.steps] == [0, 2, 1]


def test_a_teacher_that_never_answers_in_form_is_an_error_with_its_replies(config: PGKDConfig, tmp_path: Path) -> None:
    with (
        ScriptedChatModel(["no", "nope", "never"]) as teacher,
        pytest.raises(TeacherOutputError, match="no readable sample in 3 replies") as caught,
    ):
        distill(TRAIN, VALIDATION, teacher=teacher, config=config, out=tmp_path / "run")
    assert caught.value.raw_replies == ("no", "nope", "never")
    assert (tmp_path / "run" / "models" / "best" / "config.json").is_file()  # the plain student is not lost


def test_later_an_unreadable_step_is_an_empty_one(config: PGKDConfig) -> None:
    with ScriptedChatModel([FIRST, "no", "nope", "never"]) as teacher:
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    assert [step.accepted for step in result.training.steps] == [0, 2, 0]


def test_a_text_only_teacher_gets_the_contract_as_a_line(config: PGKDConfig) -> None:
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    assert '{"samples": [{"text": "...", "label": "..."}]}' in teacher.prompts[0][-1].text


def openai_config(student: Path, base_url: str, **flags: object) -> PGKDConfig:
    return tiny_config(
        student,
        **{"teacher.spec": "openai:some-model", "teacher.base_url": base_url, "teacher.structured": "auto", **flags},
    )


def test_a_real_openai_client_over_http(tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-secret")
    with serve(lambda call, _body: completion(FIRST if call == 0 else SECOND)) as server:
        config = openai_config(tiny_student, server.base_url)
        result = distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    assert result.summary.teacher == TeacherUsage(2, 200, 40, cost=None, currency="USD")
    body, later = server.requests
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["samples"]["items"]["properties"]["label"]["enum"] == sorted(TOPICS)
    assert body["messages"][0]["role"] == "user" and body["messages"][0]["content"].startswith("You are a Teacher")
    assert body["seed"] != later["seed"]
    assert body["max_tokens"] == body["max_completion_tokens"]
    assert server.keys == ["Bearer sk-planted-secret"] * 2
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"planted-secret" not in path.read_bytes()


def test_of_a_truncated_reply_whole_samples_are_kept_and_the_rest_is_asked_for(tiny_student: Path) -> None:
    with serve(lambda call, _body: completion(FIRST[:130], "length") if call == 0 else completion(SECOND)) as server:
        result = distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))
    assert [(step.parsed, step.num_requests) for step in result.training.steps] == [(0, 0), (1 + 3, 2), (3, 1)]
    talk = server.requests[1]["messages"]
    assert [message["role"] for message in talk] == ["user", "assistant", "user"]
    assert json.loads(talk[1]["content"]) == {"samples": json.loads(FIRST)["samples"][:1]}
    assert talk[2]["content"].startswith("Write 3 more of the same kind")
    assert result.training.steps[1].usage.input_tokens == 200


def test_one_retry_layer_and_its_patience(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caller, "sleep", lambda _self, _seconds: None)

    def flaky(call: int, _body: dict[str, Any]) -> Answer:
        return failure(503, "busy") if call < 2 else completion(FIRST if call == 2 else SECOND)

    with serve(flaky) as server:
        result = distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))
    assert len(server.requests) == 4 and result.training.steps[1].accepted == 2

    with serve(lambda _call, _body: failure(500, "down")) as server:
        with pytest.raises(TeacherUnavailableError, match="server error"):
            distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))
        assert len(server.requests) == 3

    with serve(lambda _call, _body: failure(429, "no money", "insufficient_quota")) as server:
        with pytest.raises(TeacherUnavailableError, match="quota used up"):
            distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))
        assert len(server.requests) == 1


def test_a_prompt_beyond_the_context_is_shortened_and_that_is_said(
    tiny_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 2700

    def short_of_memory(_call: int, body: dict[str, Any]) -> Answer:
        if len(body["messages"][0]["content"]) > limit:
            return failure(400, "This model's maximum context length is 4 tokens", "context_length_exceeded")
        return completion(FIRST)

    with serve(short_of_memory) as server:
        config = openai_config(tiny_student, server.base_url, **{"pgkd.num_kd_steps": 1, "teacher.prompt": "paper"})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].accepted == 2 and len(server.requests) > 1
    assert "prompt too long for the teacher, left out 8 of 16 rows of few_shot" in caplog.text
    assert "fruit" in server.requests[-1]["messages"][0]["content"]

    limit = 10
    with (
        serve(short_of_memory) as server,
        pytest.raises(TeacherContextError, match="take a model with a larger context"),
    ):
        distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))


@pytest.mark.local_model
def test_the_embedded_teacher_gets_a_prompt_that_fits(
    smollm2: Path, tiny_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = {
        "teacher.spec": f"local:{smollm2}",
        "teacher.prompt": "paper",
        "teacher.structured": "auto",
        "teacher.max_tokens": 48,
        "teacher.context_tokens": 640,
        "pgkd.num_kd_steps": 1,
    }
    result = distill(TRAIN, VALIDATION, config=tiny_config(tiny_student, **flags))
    assert len(result.training.steps) == 2 and "prompt too long for the teacher, left out" in caplog.text


class _NoFit:
    """Fails the test when anything is trained."""

    def __call__(self, *_args: object, **_kwargs: object) -> None:
        pytest.fail("trained before everything was checked")


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"teacher.base_url": "http://127.0.0.1:9/v1"}, TeacherUnavailableError, "connection"),
        ({"teacher.base_url": None}, TeacherUnavailableError, "OPENAI_API_KEY"),
        ({"teacher.spec": "gpt-4o"}, ConfigError, "expected provider:model"),
        ({"teacher.spec": "nobody:model", "teacher.base_url": None}, ConfigError, "nobody"),
        ({"teacher.spec": "local:/nowhere/model.gguf", "teacher.base_url": None}, ConfigError, "no such file"),
        ({"teacher.prompt": "no_such_variant"}, pgkd_agent.PGKDError, "per_class"),
        ({"student.device": "cuda:99"}, ConfigError, "not usable"),
    ],
)
def test_what_can_be_checked_is_checked_before_the_first_fit(
    tiny_student: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", _NoFit())
    config = openai_config(tiny_student, "", **flags)
    with pytest.raises(error, match=message):
        distill(TRAIN, VALIDATION, config=config)


def test_a_refused_key_is_found_before_the_first_fit(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", _NoFit())
    monkeypatch.setattr("http.server.BaseHTTPRequestHandler.send_response", _unauthorized)
    with (
        serve(lambda _call, _body: completion(FIRST)) as server,
        pytest.raises(TeacherUnavailableError, match="credentials missing or refused"),
    ):
        distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))


def _unauthorized(handler: Any, _code: int, message: str | None = None) -> None:
    handler.send_response_only(401, message)


def test_rows_in_memory_and_labels_without_rows(config: PGKDConfig) -> None:
    labels = {name: f"about {name}" for name in (*TOPICS, "space")}
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        result = distill(
            [{"text": row.text, "label": row.label} for row in TRAIN],
            VALIDATION,
            TEST,
            labels,
            teacher=teacher,
            config=config,
        )
    assert result.training.steps[1].accepted == 3  # `space` is allowed now
    assert "space" in result.classifier.labels
    assert "space: about space" in teacher.prompt_text
    with pytest.raises(DataError, match="closest: 'fruit'"):
        distill(TRAIN, VALIDATION, [("a pear", "fruits")], teacher=teacher, config=config)


@pytest.mark.local_model
def test_the_embedded_teacher_end_to_end(smollm2: Path, tiny_student: Path, tmp_path: Path) -> None:
    flags = {
        "teacher.spec": f"local:{smollm2}",
        "teacher.prompt": None,
        "teacher.structured": "auto",
        "teacher.samples_per_request": 1,
        "teacher.max_tokens": 48,
        "teacher.context_tokens": 2048,
        "pgkd.pgkd_batch_size": 2,
        **dict.fromkeys(("evidence.correct", "evidence.misclassified", "evidence.hard_negatives"), 1),
        "pgkd.num_kd_steps": 1,
        "data.task_description": "short lists of words",
    }
    config = tiny_config(tiny_student, **flags)
    result = distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    assert len(result.training.steps) == 2
    assert result.summary.samples.parsed > 0
    assert result.summary.teacher.output_tokens > 0
    with sqlite3.connect(tmp_path / "run" / "calls.sqlite") as calls:
        prompts = [row[0] for row in calls.execute("SELECT messages FROM calls WHERE kd_step = 1 AND attempt = 0")]
    calls.close()
    assert len(prompts) == 2 and all("short lists of words" in prompt for prompt in prompts)
    labels = {row["label"] for row in rows_of(tmp_path / "run" / "history.jsonl")}
    assert labels <= set(TOPICS)
