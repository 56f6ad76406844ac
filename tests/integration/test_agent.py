"""Agent mode: the teacher looks up how the student does, with tools, before it writes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.metrics.report import format_report
from pgkd_agent.pipeline import resume
from pgkd_agent.teacher import agent
from pgkd_agent.testing import ScriptedChatModel
from tests.integration import bedrock_server, openai_server
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.test_distill import FIRST, SECOND, rows_of

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)
WRITTEN = json.loads(FIRST)
TOOLS = {"get_classification_report", "get_confusions", "get_evidence", "get_written_samples", "Samples"}
LOOKS_UP: list[tuple[str, dict[str, Any]]] = [
    ("get_classification_report", {"worst": 2}),
    ("get_confusions", {}),
    ("get_evidence", {"label": "tools", "kind": "hard_negatives"}),
    ("get_written_samples", {}),
    ("Samples", WRITTEN),
]


def agent_config(student: Path, **flags: Any) -> PGKDConfig:
    defaults = {"teacher.mode": "agent", "teacher.prompt": None, "pgkd.num_kd_steps": 1}
    return tiny_config(student, **{**defaults, **flags})


def call(name: str, arguments: dict[str, Any]) -> AIMessage:
    return AIMessage(content="", tool_calls=[{"name": name, "args": arguments, "id": f"call_{name}"}])


def answers_of(messages: list[BaseMessage]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolMessage)]


def test_it_looks_everything_up_and_then_writes(tiny_student: Path, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def write(messages: list[BaseMessage]) -> AIMessage:
        seen.append(answers_of(messages))
        return call("Samples", WRITTEN if len(seen) == 1 else json.loads(SECOND))

    script = [call(*step) for step in LOOKS_UP[:4]]
    config = agent_config(tiny_student, **{"pgkd.num_kd_steps": 2})
    with ScriptedChatModel([*script, write, *script, write]) as teacher:
        result = distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=tmp_path / "run")
    report, confusions, _evidence, written = seen[0]
    assert report == format_report(result.training.steps[0].validation.report, worst=2)
    worst = result.training.steps[0].validation.confusions[0]
    first = f"{worst.count} of {worst.gold_label!r} taken for {worst.predicted_label!r}"
    assert confusions.splitlines()[0] == first
    assert written == "the classifier gets 0 of 0 right\nnothing written yet"
    assert "fresh mango and lemon" in seen[1][3] and "of 2 right" in seen[1][3]
    assert "f1-score" not in "\n".join(message.text for message in teacher.prompts[0])
    assert [(step.accepted, step.num_requests) for step in result.training.steps[1:]] == [(2, 5), (2, 5)]
    transcripts = rows_of(tmp_path / "run" / "transcripts.jsonl")
    assert [row["kd_step"] for row in transcripts] == [1, 2]
    roles = [message["role"] for message in transcripts[0]["messages"]]
    assert roles == ["system", "human", *["ai", "tool"] * 4, "ai"]
    assert transcripts[0]["messages"][3] == {"role": "tool", "content": report, "tool": "get_classification_report"}


def test_no_text_of_a_held_out_row_is_looked_up(tiny_student: Path) -> None:
    marked = [type(row)(f"{row.text} canary{number}", row.label) for number, row in enumerate(VALIDATION)]
    script = [call(name, arguments) for name, arguments in LOOKS_UP]
    with ScriptedChatModel(script) as teacher:
        distill(TRAIN, marked, teacher=teacher, config=agent_config(tiny_student))
    assert "canary" not in teacher.prompt_text


def test_a_finished_run_of_an_agent_is_replayed_without_a_call(tiny_student: Path, tmp_path: Path) -> None:
    with ScriptedChatModel([call(*step) for step in LOOKS_UP]) as teacher:
        first = distill(TRAIN, VALIDATION, teacher=teacher, config=agent_config(tiny_student), out=tmp_path / "run")
    transcripts = (tmp_path / "run" / "transcripts.jsonl").read_bytes()
    with ScriptedChatModel([]) as silent:
        again = resume(tmp_path / "run", teacher=silent)
    assert again.training.history == first.training.history and again.summary.teacher == first.summary.teacher
    assert (tmp_path / "run" / "transcripts.jsonl").read_bytes() == transcripts


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    bedrock_server.sign_in(monkeypatch)


def openai_call(name: str, arguments: dict[str, Any], cut: int | None = None) -> Answer:
    answer = openai_server.completion("", "tool_calls" if cut is None else "length")
    assert isinstance(answer.content, dict)
    function = {"name": name, "arguments": json.dumps(arguments)[:cut]}
    tool_calls = [{"id": f"call_{name}", "type": "function", "function": function}]
    answer.content["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": tool_calls}
    return answer


def test_over_openais_protocol(tiny_student: Path, tmp_path: Path) -> None:
    with openai_server.serve(lambda number, _body: openai_call(*LOOKS_UP[number])) as server:
        config = agent_config(tiny_student, **{"teacher.spec": "openai:m", "teacher.base_url": server.base_url})
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 5
    assert result.summary.teacher.input_tokens == 500
    assert {tool["function"]["name"] for tool in server.requests[0]["tools"]} == TOOLS
    results = [message for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert results[0]["content"] == format_report(result.training.steps[0].validation.report, worst=2)
    assert len({body["seed"] for body in server.requests}) == 5
    with sqlite3.connect(tmp_path / "run" / "calls.sqlite") as calls:
        rows = calls.execute("SELECT attempt, finish_reason, input_tokens FROM calls ORDER BY id").fetchall()
    calls.close()
    assert rows == [(number, "tool_calls", 100) for number in range(5)]


BROKEN: list[Any] = [
    [{"type": "function", "function": {"name": "get_confusions", "arguments": "{}"}}],  # no id
    [{"id": 7, "type": "function", "function": {"name": "get_confusions", "arguments": None}}],
    [{"id": "a", "type": "function", "function": {"name": "get_confusions", "arguments": "label is tools"}}],
    [{"id": "b", "type": "function", "function": {"name": "get_confusions", "arguments": "[1, 2]"}}],
    [{"id": "c", "type": "function", "function": {"name": "get_confusions", "arguments": {"label": "tools"}}}],
    [{"id": "d", "type": "function", "function": {"name": "look_it_up", "arguments": "{}"}}],
    [{"id": "e", "type": "function", "function": {"name": None, "arguments": "{'label': 'tools'}"}}],
    [
        None,
        {"id": "f"},
        {"id": "g", "function": {"name": "get_evidence", "arguments": '{"label": 5, "kind": "worst"}'}},
    ],
]


def test_whatever_tools_are_called_with_the_agent_is_told(tiny_student: Path) -> None:
    def answer(call: int, _body: dict[str, Any]) -> Answer:
        if call == len(BROKEN):
            return openai_call("Samples", WRITTEN)
        reply = openai_call("x", {})
        assert isinstance(reply.content, dict)
        reply.content["choices"][0]["message"]["tool_calls"] = BROKEN[call]
        return reply

    with openai_server.serve(answer) as server:
        config = agent_config(tiny_student, **{"teacher.spec": "openai:m", "teacher.base_url": server.base_url})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == len(BROKEN) + 1
    told = [message for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert len(told) == sum(call is not None for calls in BROKEN for call in calls)
    calls = [call for message in server.requests[-1]["messages"] for call in message.get("tool_calls") or []]
    assert [call["id"] for call in calls] == [message["tool_call_id"] for message in told]
    assert sum("The arguments are no JSON object" in message["content"] for message in told) == 2
    assert "look_it_up is not a valid tool" in told[5]["content"]


def test_an_agent_without_a_message_is_asked_without_tools(tiny_student: Path) -> None:
    nothing = openai_server.completion("")
    assert isinstance(nothing.content, dict)
    nothing.content["choices"] = []
    answers = [nothing, openai_server.completion(FIRST)]
    with openai_server.serve(lambda call, _body: answers[call]) as server:
        config = agent_config(tiny_student, **{"teacher.spec": "openai:m", "teacher.base_url": server.base_url})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 2


def test_over_bedrocks_protocol(tiny_student: Path, credentials: None) -> None:
    replies = [bedrock_server.converse("ok"), *(bedrock_server.tool_use(*step) for step in LOOKS_UP)]
    with bedrock_server.serve(lambda number, _body: replies[number]) as server:
        model = "bedrock_converse:anthropic.claude-3-sonnet-20240229-v1:0"
        config = agent_config(tiny_student, **{"teacher.spec": model, "teacher.base_url": server.endpoint})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 5
    assert {tool["toolSpec"]["name"] for tool in server.requests[1]["toolConfig"]["tools"]} == TOOLS
    last = json.dumps(server.requests[-1]["messages"])
    assert "toolResult" in last and "f1-score" in last


def test_samples_are_kept_however_the_answer_comes(tiny_student: Path) -> None:
    report = LOOKS_UP[0]
    for answer in (
        AIMessage(f"Here they are: {FIRST}"),
        call("Samples", {"samples": [{"text": 5}, *WRITTEN["samples"]]}),
    ):
        with ScriptedChatModel([call(*report), answer]) as teacher:
            result = distill(TRAIN, VALIDATION, teacher=teacher, config=agent_config(tiny_student))
        assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 2
    with openai_server.serve(
        lambda n, _body: [openai_call(*report), openai_call("Samples", WRITTEN, 140)][n]
    ) as server:
        config = agent_config(tiny_student, **{"teacher.spec": "openai:m", "teacher.base_url": server.base_url})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].parsed == 1  # cut off in the second


def test_a_model_that_keeps_looking_things_up_is_stopped_and_asked_without_tools(
    tiny_student: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "MAX_TOOL_CALLS", 3)
    looks_up = call(*LOOKS_UP[0])
    config = agent_config(tiny_student, **{"pgkd.num_kd_steps": 2})
    script = [*[looks_up] * 7, FIRST, looks_up, call("Samples", json.loads(SECOND))]
    with ScriptedChatModel(script) as teacher:
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    assert [(step.accepted, step.num_requests) for step in result.training.steps[1:]] == [(2, 8), (2, 2)]
    blocked = "\n".join(message.text for message in teacher.prompts[6])
    assert "limit" in blocked.lower()
    assert caplog.text.count("no agent for this step: it ended without samples; asking without tools") == 1


def test_a_model_without_tools_is_asked_without_them_from_then_on(
    tiny_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def no_tools(_call: int, body: dict[str, Any]) -> Answer:
        if "tools" in body:
            return openai_server.failure(400, "m does not support tools")
        return openai_server.completion(FIRST)

    with openai_server.serve(no_tools) as server:
        flags = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "pgkd.num_kd_steps": 2}
        result = distill(TRAIN, VALIDATION, config=agent_config(tiny_student, **flags))
    assert result.training.steps[1].accepted == 2 and len(server.requests) == 3
    assert caplog.text.count("no agent from now on: it rejects calls with tools") == 1
    assert "You are a Teacher model for a Student LM" in server.requests[-1]["messages"][0]["content"]

    caplog.clear()
    with ScriptedChatModel(["What shall I do?", FIRST, "And now?", SECOND, FIRST]) as teacher:
        config = agent_config(tiny_student, **{"pgkd.num_kd_steps": 3})
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    assert [step.num_requests for step in result.training.steps[1:]] == [2, 2, 1]
    assert caplog.text.count("no agent for this step: it called no tool") == 1
    assert caplog.text.count("no agent from now on: it called no tool") == 1


def test_a_refusal_is_counted_and_costs_the_agent_this_step_only(
    tiny_student: Path, caplog: pytest.LogCaptureFixture
) -> None:
    declines = AIMessage("", additional_kwargs={"refusal": "I cannot help with that."})
    with ScriptedChatModel([declines, FIRST, declines, SECOND, *(call(*step) for step in LOOKS_UP)]) as teacher:
        config = agent_config(tiny_student, **{"pgkd.num_kd_steps": 3})
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config)
    steps = result.training.steps[1:]
    assert [(step.num_requests, step.refused) for step in steps] == [(2, 1), (2, 1), (len(LOOKS_UP), 0)]
    assert caplog.text.count("no agent for this step: it declined to answer") == 2


def test_a_cap_ends_a_conversation_and_the_run(tiny_student: Path, tmp_path: Path) -> None:
    with ScriptedChatModel([call(*step) for step in LOOKS_UP[:2]]) as teacher:
        config = agent_config(tiny_student, **{"budget.max_calls": 2})
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config, out=tmp_path / "run")
    assert "max_calls is 2" in result.summary.stopped_by and result.training.steps[1].num_requests == 2
    (transcript,) = rows_of(tmp_path / "run" / "transcripts.jsonl")
    assert transcript["messages"][-1]["tool_calls"][0]["name"] == "get_confusions"


def test_a_prompt_about_one_class_is_no_prompt_for_an_agent(tiny_student: Path) -> None:
    with pytest.raises(ConfigError, match="agent needs a prompt over all classes, and 'per_class'"):
        distill(TRAIN, VALIDATION, config=agent_config(tiny_student, **{"teacher.prompt": "per_class"}))


@pytest.mark.local_model
def test_local_teachers_work_as_agents_or_fall_back(
    smollm2: Path,
    tiny_student: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The embedded one, and one that the variable PGKD_TEST_GGUF names."""
    monkeypatch.setattr(agent, "MAX_TOOL_CALLS", 2)
    caplog.set_level(logging.INFO)
    for model in filter(None, (str(smollm2), os.environ.get("PGKD_TEST_GGUF"))):
        run = tmp_path / Path(model).stem
        flags = {
            "teacher.spec": f"local:{model}",
            "teacher.structured": "auto",
            "teacher.max_tokens": 64,
            "pgkd.pgkd_batch_size": 2,
            **dict.fromkeys(("evidence.correct", "evidence.misclassified", "evidence.hard_negatives"), 1),
        }
        result = distill(TRAIN, VALIDATION, config=agent_config(tiny_student, **flags), out=run)
        assert result.training.steps[1].num_requests >= 1 and result.training.steps[1].parsed > 0
        messages = [message for talk in rows_of(run / "transcripts.jsonl") for message in talk["messages"]]
        used_tools = any("tool_calls" in message for message in messages)
        assert used_tools or "asking without tools" in caplog.text
        caplog.clear()
