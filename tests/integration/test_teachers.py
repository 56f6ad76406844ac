"""Caps, pace, cache, ensembles and verification, with real clients against loopback servers."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.config import BudgetSettings, PGKDConfig
from pgkd_agent.errors import BudgetExceededError, ConfigError
from pgkd_agent.pipeline import load_task, resume, run
from pgkd_agent.runs.observer import Observer
from pgkd_agent.teacher.calls.calling import Caller
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.prompting.tokens import most_tokens
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, serve
from tests.integration.test_distill import FIRST, SECOND, rows_of
from tests.integration.test_resume import run_config, write_samples

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)


def config_for(student: Path, server: OpenAIServer, **flags: Any) -> PGKDConfig:
    defaults = {
        "teacher.max_concurrency": None,
        "teacher.max_tokens": 60,
        "pgkd.pgkd_batch_size": 12,
        "student.max_epochs": 2,
    }
    return run_config(student, server, **{**defaults, **flags})


def billed(call: int, body: dict[str, Any]) -> Answer:
    """As costly as it can be: a token a byte of the prompt, and the longest reply."""
    answer = write_samples(call, body)
    assert isinstance(answer.content, dict)
    sent = most_tokens(json.dumps(body["messages"])) + most_tokens(json.dumps(body.get("response_format", "")))
    answer.content["usage"] = {
        "prompt_tokens": sent,
        "completion_tokens": body["max_tokens"],
        "total_tokens": sent + body["max_tokens"],
    }
    return answer


def tokens_of(run: Path) -> int:
    with sqlite3.connect(run / "calls.sqlite") as calls:
        (total,) = calls.execute("SELECT sum(input_tokens + output_tokens) FROM calls").fetchone()
    calls.close()
    return int(total)


@pytest.mark.parametrize("cap", [7_000, 12_000, 20_000])
def test_a_cap_on_tokens_is_never_exceeded_by_concurrent_calls_and_ends_the_run_with_its_best_model(
    tiny_student: Path, tmp_path: Path, cap: int
) -> None:
    with serve(billed) as server:
        config = config_for(tiny_student, server, **{"budget.max_tokens": cap, "teacher.max_concurrency": 4})
        result = distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    assert 0 < tokens_of(tmp_path / "run") <= cap
    assert len(server.requests) < 12
    assert f"budget.max_tokens is {cap}" in result.summary.stopped_by
    assert result.training.steps[-1].stopped_by == result.summary.stopped_by
    assert (tmp_path / "run" / "models" / "best" / "model.safetensors").is_file()
    paid = sum(step.usage.input_tokens + step.usage.output_tokens for step in result.training.steps)
    assert paid == tokens_of(tmp_path / "run")  # what was paid for was used


def test_a_cap_on_calls_counts_retries_too(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caller, "sleep", lambda _self, _seconds: None)

    def flaky(call: int, body: dict[str, Any]) -> Answer:
        return Answer(500, {"error": {"message": "down"}}) if call % 2 else write_samples(call, body)

    with serve(flaky) as server:
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **{"budget.max_calls": 5}))
    assert len(server.requests) == 5 and "max_calls is 5" in result.summary.stopped_by


def test_a_run_that_a_cap_ended_goes_on_under_a_higher_one_as_if_nothing_had_been(
    tiny_student: Path, tmp_path: Path
) -> None:
    with serve(write_samples) as server:
        whole = distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server), out=tmp_path / "whole")
        calls = len(server.requests)
        flags = {"budget.max_calls": 8, "teacher.max_concurrency": 1}
        capped = distill(
            TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=tmp_path / "run"
        )
        assert (
            len(capped.training.steps) == 3
            and capped.training.steps[2].stopped_by
            and capped.training.steps[2].num_requests == 2
        )
        result = resume(tmp_path / "run", budget=BudgetSettings())
        assert len(server.requests) == 2 * calls
    assert result.training.history == whole.training.history and result.summary.test == whole.summary.test
    assert result.training.best_step == whole.training.best_step
    for name in ("history", "rejected"):
        assert rows_of(tmp_path / "run" / f"{name}.jsonl") == rows_of(tmp_path / "whole" / f"{name}.jsonl")
    models = [tmp_path / name / "models" / "best" / "model.safetensors" for name in ("run", "whole")]
    assert models[0].read_bytes() == models[1].read_bytes()


def test_a_cap_without_room_for_one_request_is_said_before_the_first_fit(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", lambda *_args, **_kwargs: pytest.fail("trained"))
    with serve(write_samples) as server:
        with pytest.raises(BudgetExceededError, match="max_tokens is 100: 0 are spent"):
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **{"budget.max_tokens": 100}))
        with pytest.raises(ConfigError, match="needs a price for openai:m"):
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **{"budget.max_usd": 1}))
        assert server.requests == []


class Bill(Observer):
    def __init__(self) -> None:
        self.estimates: list[Estimate] = []

    def on_estimate(self, estimate: Estimate) -> None:
        self.estimates.append(estimate)


def test_the_bill_is_known_in_advance(tiny_student: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "as_of: 2026-01-01\nmodels: {'openai:m': {input_per_million: 1000, output_per_million: 2000}}", encoding="utf-8"
    )
    bill = Bill()
    with serve(billed) as server:
        config = config_for(tiny_student, server, **{"teacher.prices": str(prices)})
        result = distill(TRAIN, VALIDATION, config=config, observer=bill)
    at_start, with_prompts = bill.estimates
    assert at_start.calls == with_prompts.calls == len(server.requests) == 12
    low, high = at_start.input_tokens
    assert low < with_prompts.input_tokens[0] < high
    sent = sum(len("".join(message["content"] for message in body["messages"])) for body in server.requests)
    assert 3 < sent / with_prompts.input_tokens[0] < 5.5  # characters a token
    assert result.summary.estimate == with_prompts
    usage = result.summary.teacher
    assert usage.cost == pytest.approx((usage.input_tokens * 1000 + usage.output_tokens * 2000) / 1e6)
    assert at_start.cost and at_start.cost[0] < usage.cost


def test_requests_of_a_step_are_under_way_at_once_and_their_order_does_not_matter(tiny_student: Path) -> None:
    barrier = threading.Barrier(3, timeout=20)

    def together(call: int, body: dict[str, Any]) -> Answer:
        barrier.wait()  # nobody is answered before three have asked
        return write_samples(call, body)

    with serve(together) as server:
        several = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **{"teacher.max_concurrency": 3}))
    with serve(write_samples) as server:
        single = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **{"teacher.max_concurrency": 1}))
    assert several.training.history == single.training.history


def test_a_cache_serves_other_runs_without_a_charge(tiny_student: Path, tmp_path: Path) -> None:
    with serve(write_samples) as server:
        flags = {"teacher.cache": str(tmp_path / "shared.sqlite")}
        first = distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=tmp_path / "a")
        paid = len(server.requests)
        second = distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=tmp_path / "b")
        assert len(server.requests) == paid
        third = resume(tmp_path / "b")
        other = config_for(tiny_student, server, **flags, **{"teacher.temperature": 0.1})
        distill(TRAIN, VALIDATION, TEST, config=other)
        assert len(server.requests) == 2 * paid  # another temperature is another question
    assert first.training.history == second.training.history == third.training.history
    assert first.summary.teacher.input_tokens > 0
    assert second.summary.teacher.input_tokens == third.summary.teacher.input_tokens == 0


def test_replies_that_runs_share_count_where_methods_are_compared(tiny_student: Path, tmp_path: Path) -> None:
    with serve(write_samples) as server:
        flags = {"teacher.cache": str(tmp_path / "shared.sqlite")}
        config, task = config_for(tiny_student, server, **flags), load_task(TRAIN, VALIDATION)
        first = run(task, config, cache_counts=True)
        second = run(task, config, out=tmp_path / "b", cache_counts=True)
        assert first.summary.teacher == second.summary.teacher and second.summary.teacher.input_tokens == 1200
        capped = config_for(tiny_student, server, **flags, **{"budget.max_calls": 5, "teacher.max_concurrency": 1})
        third = run(task, capped, cache_counts=True)
    assert len(server.requests) == 12 and third.summary.teacher.requests == 5
    assert "max_calls is 5" in third.summary.stopped_by


def test_teachers_take_turns_and_the_result_says_what_each_was_worth(tiny_student: Path, tmp_path: Path) -> None:
    def reply(call: int, body: dict[str, Any]) -> Answer:
        return completion(FIRST if body["model"] == "a" else SECOND)

    with serve(reply) as server:
        flags = {
            "teacher.spec": "openai:a",
            "teacher.ensemble": [{"spec": "openai:b"}],  # at the same server
            "teacher.prompt": "paper",
            "pgkd.pgkd_batch_size": 4,
            "pgkd.num_kd_steps": 4,
        }
        result = distill(
            TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=tmp_path / "run"
        )
    assert [step.teacher for step in result.training.steps] == ["", "openai:a", "openai:b", "openai:a", "openai:b"]
    first, second = result.summary.teachers
    assert (first.teacher, first.steps, first.accepted, second.accepted) == ("openai:a", 2, 2, 2)
    assert first.rejected.keys() >= {"label"} and first.asked == 8
    losses = [step.validation.loss for step in result.training.steps]
    assert first.loss_change == pytest.approx(losses[1] - losses[0] + losses[3] - losses[2])
    assert first.loss_change + second.loss_change == pytest.approx(losses[4] - losses[0])
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["teacher"] == "openai:a, openai:b"


def test_the_teacher_verifies_its_own_samples(tiny_student: Path, tmp_path: Path) -> None:
    def reply(_call: int, body: dict[str, Any]) -> Answer:
        prompt = body["messages"][0]["content"]
        if "Text-to-classifiy" not in prompt:
            return completion(FIRST)
        assert body["temperature"] == 0.0 and body["max_tokens"] == 100
        return completion('{"class_label": "tools"}')

    with serve(reply) as server:
        flags = {
            "guardrails.verify": True,
            "pgkd.num_kd_steps": 1,
            "teacher.prompt": "paper",
            "pgkd.pgkd_batch_size": 4,
        }
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
    step = result.training.steps[1]
    assert step.accepted == 1 and step.rejected["verification"] == 1
    assert [row.label for row in result.training.history.rows[len(TRAIN) :]] == ["tools"]
    assert len(server.requests) == 3 == step.num_requests and step.usage.input_tokens == 300
    (rejected,) = [row for row in rows_of(tmp_path / "run" / "rejected.jsonl") if row["rule"] == "verification"]
    assert rejected["reason"] == "the teacher itself labels it 'tools'" and rejected["label"] == "fruit"


def test_what_could_not_be_verified_is_not_trained_on(tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(FIRST)) as server:
        flags = {
            "guardrails.verify": True,
            "budget.max_calls": 1,
            "teacher.prompt": "paper",
            "pgkd.pgkd_batch_size": 4,
        }
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags))
    assert result.training.steps[1].accepted == 0 and result.training.steps[1].rejected["verification"] == 2
    assert "max_calls is 1" in result.summary.stopped_by and len(result.training.steps) == 2


def test_a_teacher_without_a_chat_model_cannot_verify(tiny_student: Path) -> None:
    class Writer:
        def write(self, request: Any) -> Any:
            raise AssertionError

    with pytest.raises(ConfigError, match="needs a teacher that is a chat model"):
        distill(TRAIN, VALIDATION, teacher=Writer(), config=tiny_config(tiny_student, **{"guardrails.verify": True}))


@pytest.mark.parametrize(
    "answer",
    [
        lambda key: completion(FIRST),
        lambda key: Answer(401, {"error": {"message": f"Incorrect API key provided: {key}."}}),
        lambda key: Answer(400, {"error": {"message": f"no such parameter; headers: Authorization: Bearer {key}"}}),
        lambda key: Answer(500, {"error": {"message": f"panic: {key}"}}),
    ],
    ids=["works", "401", "400", "500"],
)
def test_secrets_of_the_environment_appear_nowhere(
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    answer: Any,
) -> None:
    """A server that says back what it was sent, as some proxies do."""
    monkeypatch.setattr(Caller, "sleep", lambda _self, _seconds: None)
    caplog.set_level(logging.DEBUG, logger="pgkd_agent")
    secrets = {
        name: f"planted-{name.lower()}-0123456789"
        for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "DB_PASSWORD")
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    said = ""
    with serve(lambda _call, _body: answer(secrets["OPENAI_API_KEY"])) as server:
        flags = {"teacher.prompt": "paper", "pgkd.pgkd_batch_size": 4, "pgkd.num_kd_steps": 1}
        try:
            distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
        except Exception as error:
            said = str(error)
        assert server.keys[0] == f"Bearer {secrets['OPENAI_API_KEY']}"  # it did travel
    out, err = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert written
    for value in secrets.values():
        assert value not in said and value not in caplog.text and value not in out + err
        assert value.encode() not in written
    assert os.environ["DB_PASSWORD"] == secrets["DB_PASSWORD"]


@pytest.mark.parametrize(
    "url",
    ["https://me:hunter2@proxy.example/v1", "https://:hunter2@proxy.example", "https://proxy.example/v1?key=hunter2"],
)
def test_a_password_in_the_address_is_refused(tiny_student: Path, tmp_path: Path, url: str) -> None:
    flags = {"teacher.spec": "openai:m", "teacher.base_url": url}
    with pytest.raises(ConfigError, match="belong into the environment") as caught:
        distill(TRAIN, VALIDATION, config=tiny_config(tiny_student, **flags), out=tmp_path / "run")
    assert "hunter2" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_price_is_asked_for_only_where_money_is_capped(config: PGKDConfig) -> None:
    capped = config.model_copy(update={"budget": BudgetSettings(max_usd=1)})
    with pytest.raises(ConfigError, match="needs a price for ScriptedChatModel"):
        distill(TRAIN, VALIDATION, teacher=ScriptedChatModel([FIRST, SECOND]), config=capped)


def test_what_is_no_teacher_is_refused(tiny_student: Path) -> None:
    with pytest.raises(ConfigError, match="the teacher is a int; expected a spec"):
        distill(TRAIN, VALIDATION, teacher=3, student=str(tiny_student))  # type: ignore[arg-type]
