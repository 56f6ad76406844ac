"""Whole distillations with Bedrock's real client against a loopback Converse server that checks signatures."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.calls.calling import Caller
from tests.integration.bedrock_server import REGION, SECRET, BedrockServer, converse, error, serve, sign_in, tool_use
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.test_distill import FIRST, SECOND

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)
CLAUDE = "anthropic.claude-3-sonnet-20240229-v1:0"
LLAMA = "meta.llama3-8b-instruct-v1:0"
OK = converse("ok")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    sign_in(monkeypatch)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


def bedrock_config(student: Path, server: BedrockServer, model: str = CLAUDE, **flags: Any) -> PGKDConfig:
    return tiny_config(
        student,
        **{
            "teacher.spec": f"bedrock_converse:{model}",
            "teacher.base_url": server.endpoint,
            "teacher.structured": "auto",
            "teacher.timeout": 12.5,
            **flags,
        },
    )


def claude(call: int, body: dict[str, Any]) -> Answer:
    """Calls the tool that it has to call, and else answers in words."""
    if "toolConfig" not in body:
        return OK
    assert body["toolConfig"]["toolChoice"] in ({"any": {}}, {"tool": {"name": "answer"}})
    return tool_use("answer", json.loads(FIRST if call == 1 else SECOND))


def llama(call: int, body: dict[str, Any]) -> Answer:
    """Llama 3 8B takes no tools, and Bedrock says so."""
    if "toolConfig" in body:
        return error(400, "ValidationException", "This model doesn't support tool use.")
    return [OK, OK, converse(FIRST), converse(SECOND)][call]


@pytest.mark.parametrize(("model", "answer"), [(CLAUDE, claude), (LLAMA, llama)])
def test_a_whole_distillation(
    tiny_student: Path, tmp_path: Path, model: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(answer) as server:
        config = bedrock_config(tiny_student, server, model)
        result = distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    assert server.models == [model] * (3 if model == CLAUDE else 4)
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    usage = result.summary.teacher
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 180, 60)
    assert usage.cost == (pytest.approx((180 * 3 + 60 * 15) / 1e6) if model == CLAUDE else None)
    request = server.requests[-2]
    assert request["inferenceConfig"]["temperature"] == 0.8 and request["inferenceConfig"]["maxTokens"] >= 64
    prompt = request["messages"][0]["content"][0]["text"]
    assert "You are a Teacher model for a Student LM" in prompt
    assert ('{"samples": [{"text": "...", "label": "..."}]}' in prompt) == (model == LLAMA)
    refused = "does not take answers as tool; asking as text from now on"
    assert caplog.text.count(refused) == (model == LLAMA)
    with sqlite3.connect(tmp_path / "run" / "calls.sqlite") as calls:
        assert [row[0] for row in calls.execute("SELECT finish_reason FROM calls WHERE outcome = 'answered'")] == (
            ["end_turn", "tool_use", "tool_use"] if model == CLAUDE else ["end_turn"] * 3
        )
    calls.close()
    written = "".join(path.read_text() for path in (tmp_path / "run").glob("*.[jy]*"))
    assert SECRET not in written


def test_throttling_is_waited_for_once_and_a_cut_reply_keeps_its_whole_samples(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caller, "sleep", lambda _self, _seconds: None)
    cut = FIRST[: FIRST.index(', {"text": "a spaceship')]
    replies = [OK, error(429, "ThrottlingException", "slow down"), converse(cut, "max_tokens"), converse(SECOND)]
    with serve(lambda call, _body: replies[call]) as server:
        result = distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, server))
    assert len(server.requests) == 4  # one layer of retries
    assert [step.parsed for step in result.training.steps] == [0, 3, 3]


def no_fit(*_args: object, **_kwargs: object) -> None:
    pytest.fail("trained before the teacher was checked")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(403, "AccessDeniedException", "You don't have access to the model"), "may use this model"),
        (error(403, "UnrecognizedClientException", "The security token is invalid"), "credentials missing or refused"),
        (error(400, "ValidationException", "The provided model identifier is invalid."), "check the model's name"),
        (error(400, "ServiceQuotaExceededException", "too many tokens"), "quota used up"),
    ],
)
def test_what_bedrock_refuses_is_known_before_the_first_fit(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, message: str
) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", no_fit)
    with serve(lambda _call, _body: answer) as server:
        with pytest.raises(TeacherUnavailableError, match=message):
            distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, server))
        assert len(server.requests) == 1


def test_a_wrong_secret_is_refused_by_its_signature(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", no_fit)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with (
        serve(lambda _call, _body: OK) as server,
        pytest.raises(TeacherUnavailableError, match="credentials missing or refused"),
    ):
        distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, server))
    assert server.requests == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (("AWS_REGION", "AWS_DEFAULT_REGION"), "set AWS_REGION"),
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "no AWS credentials; set AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_missing_is_named(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch, variables: tuple[str, ...], message: str
) -> None:
    for name in variables:
        monkeypatch.delenv(name)
    with pytest.raises(TeacherUnavailableError, match=message):
        distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, BedrockServer("http://127.0.0.1:9")))


def test_a_forced_form_is_kept_to(tiny_student: Path) -> None:
    flags = {"pgkd.num_kd_steps": 1, "teacher.structured": "text"}
    with serve(lambda call, _body: [OK, converse(FIRST)][call]) as server:
        distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, server, **flags))
    assert "toolConfig" not in json.dumps(server.requests)
    flags["teacher.structured"] = "tool"
    with serve(llama) as server, pytest.raises(TeacherUnavailableError, match="support tool use"):
        distill(TRAIN, VALIDATION, config=bedrock_config(tiny_student, server, LLAMA, **flags))
