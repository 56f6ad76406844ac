"""What a run was charged: the same after a failure, a restart, or another process; and nobody pays after the end."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgkd_agent import distill
from pgkd_agent.config import BudgetSettings, PGKDConfig, build_config
from pgkd_agent.errors import (
    BudgetExceededError,
    ConfigError,
    StorageError,
    TeacherOutputError,
    TeacherUnavailableError,
)
from pgkd_agent.experiments.zero_shot import calls_beside, evaluate_zero_shot
from pgkd_agent.pipeline import resume
from pgkd_agent.runs.observer import Observer
from pgkd_agent.teacher.calls.call_log import Call, CallLog, RawReply
from pgkd_agent.teacher.calls.calling import Caller
from pgkd_agent.teacher.calls.settling import OVERHEAD_TOKENS
from pgkd_agent.testing import ScriptedChatModel
from pgkd_agent.types import (
    Example,
    FitResult,
    GeneratedSample,
    Label,
    StepRecord,
    TeacherReply,
    TeacherRequest,
    TokenUsage,
)
from tests.integration import bedrock_server
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, failure, serve
from tests.integration.test_distill import FIRST, SECOND, rows_of
from tests.integration.test_resume import write_samples
from tests.integration.test_teachers import config_for

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)
HTML = Answer(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})
PAPER = {"teacher.prompt": "paper", "pgkd.pgkd_batch_size": 4, "teacher.max_tokens": 60}

UNPATCHED_SLEEP = Caller.sleep


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caller, "sleep", lambda _self, _seconds: None)


def charged(log: Path) -> tuple[int, TokenUsage]:
    """(calls, tokens) over all models."""
    calls = CallLog(log)
    rows = list(calls.charged())
    calls.close()
    return sum(number for _, number, _ in rows), sum((usage for _, _, usage in rows), TokenUsage())


def replies_of(run: Path) -> list[RawReply]:
    """All that were paid for, as they are taken from the log again."""
    log = CallLog(run / "calls.sqlite")
    found = [log.find(row["key"]) for row in log if row["outcome"] == "answered"]
    log.close()
    return [reply for reply in found if reply]


def outcomes(log: Path) -> list[str]:
    calls = CallLog(log)
    rows = [row["outcome"] for row in calls]
    calls.close()
    return rows


def contents(folder: Path) -> dict[str, str]:
    """A hash by file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Interrupt(Observer):
    def __init__(self, kd_step: int) -> None:
        self._kd_step = kd_step

    def on_step(self, record: StepRecord) -> None:
        if record.kd_step == self._kd_step:
            raise KeyboardInterrupt


def without_usage(answer: Answer) -> Answer:
    assert isinstance(answer.content, dict)
    return Answer(200, {name: value for name, value in answer.content.items() if name != "usage"})


def test_failed_calls_count_alike_before_and_after_a_restart(tiny_student: Path, tmp_path: Path) -> None:
    """Timed out: perhaps billed, so in full. Refused with a status: nothing. Without usage: an estimate."""

    def answers(call: int, body: dict[str, Any]) -> Answer:
        if call == 0:
            return Answer(200, {}, seconds=1.0)
        if call == 1:
            return failure(503, "overloaded")
        return without_usage(write_samples(call, body)) if call == 2 else write_samples(call, body)

    run = tmp_path / "run"
    with serve(answers) as server:
        flags = {"teacher.timeout": 0.5, "teacher.max_concurrency": 1, "budget.max_calls": 5}
        capped = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=run)
        assert len(server.requests) == 5 and "max_calls is 5" in capped.summary.stopped_by
        assert outcomes(run / "calls.sqlite") == ["PASSING", "PASSING", "answered", "answered", "answered"]
        calls, tokens = charged(run / "calls.sqlite")
        (estimated,) = (reply for reply in replies_of(run) if reply.usage.estimated_calls)
        assert 0 < estimated.usage.output_tokens < 60 and estimated.usage.input_tokens > 50
        assert calls == 5 and tokens.output_tokens == 60 + 2 * 20 + estimated.usage.output_tokens
        assert tokens.input_tokens > OVERHEAD_TOKENS + estimated.usage.input_tokens
        used = capped.summary.teacher
        assert used.estimated_calls == 1 and used.output_tokens == 2 * 20 + estimated.usage.output_tokens
        assert "(estimated for 1 call: the provider reports none)" in str(used.usage)

        again = resume(run)  # under the same cap: what was charged is not forgotten
        assert len(server.requests) == 5 and again.training.history == capped.training.history
        more = resume(run, budget=BudgetSettings(max_calls=7))
        assert len(server.requests) == 7 and "max_calls is 7" in more.summary.stopped_by


class OwnTeacher:
    def write(self, request: TeacherRequest) -> TeacherReply:
        samples = json.loads(FIRST if request.kd_step == 1 else SECOND)["samples"]
        return TeacherReply(tuple(GeneratedSample(one["text"], one["label"]) for one in samples))


def test_tokens_that_nobody_reports_are_not_known_instead_of_none(tiny_student: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_student, **{"pgkd.num_kd_steps": 1})
    used = distill(TRAIN, VALIDATION, teacher=OwnTeacher(), config=config, out=tmp_path / "run").summary.teacher
    assert (used.requests, used.input_tokens, used.output_tokens, used.cost) == (1, None, None, None)
    assert str(used.usage) == "tokens not known"
    assert "1 request, tokens not known," in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_cap_counts_an_estimate_of_what_is_not_reported(tiny_student: Path, tmp_path: Path) -> None:
    with serve(lambda call, body: without_usage(write_samples(call, body))) as server:
        flags = {"teacher.max_concurrency": 1, "budget.max_tokens": 6000}
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
    calls, tokens = charged(tmp_path / "run" / "calls.sqlite")
    used = result.summary.teacher
    assert "budget.max_tokens is 6000" in result.summary.stopped_by and calls == len(server.requests) > 2
    assert (used.input_tokens, used.output_tokens) == (tokens.input_tokens, tokens.output_tokens)
    assert used.estimated_calls == calls and 0 < tokens.input_tokens + tokens.output_tokens <= 6000


def test_what_was_under_way_when_the_process_died_counts_in_full(tiny_student: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serve(write_samples) as server:
        with pytest.raises(KeyboardInterrupt):
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server), out=run, observer=Interrupt(0))
        log = CallLog(run / "calls.sqlite")
        log.begin("key", Call(1, 0, 0, "openai:m", "", {}, []), TokenUsage(5000, 60))
        log.close()
        result = resume(run, budget=BudgetSettings(max_tokens=5100))
    assert "5060 are spent" in result.summary.stopped_by and server.requests == []


def test_replies_from_a_cache_are_no_calls(tiny_student: Path, tmp_path: Path) -> None:
    shared = {"teacher.cache": str(tmp_path / "folder" / "shared.sqlite"), "teacher.max_concurrency": 1}
    with serve(write_samples) as server:
        distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **shared, **{"pgkd.num_kd_steps": 1}))
        paid = len(server.requests)
        capped = config_for(tiny_student, server, **shared, **{"budget.max_calls": 2})
        first = distill(TRAIN, VALIDATION, config=capped, out=tmp_path / "run")
        assert len(server.requests) == paid + 2 and charged(tmp_path / "run" / "calls.sqlite")[0] == 2
        again = resume(tmp_path / "run")
        assert len(server.requests) == paid + 2 and again.training.history == first.training.history


def test_an_answer_that_was_no_answer_of_the_api_is_charged(tiny_student: Path, tmp_path: Path) -> None:
    with serve(lambda _call, _body: HTML) as server, pytest.raises(TeacherUnavailableError, match=r"teacher\.base_url"):
        distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **PAPER), out=tmp_path / "run")
    calls, tokens = charged(tmp_path / "run" / "calls.sqlite")
    assert calls == 1 and tokens.output_tokens == 60


@pytest.mark.parametrize(
    "broken",
    [Answer(200, b'{"id": "1", "choices": [{"index'), Answer(200, b""), Answer(200, {"id": "1", "choices": []})],
    ids=["cut", "empty", "without choices"],
)
def test_a_broken_answer_with_status_200_is_charged_in_full(tiny_student: Path, tmp_path: Path, broken: Answer) -> None:
    with serve(lambda _call, _body: broken) as server, pytest.raises(TeacherOutputError, match="reply was empty"):
        distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **PAPER), out=tmp_path / "run")
    calls, tokens = charged(tmp_path / "run" / "calls.sqlite")
    assert calls >= 1 and tokens.output_tokens == 60 * calls


def test_refusals_give_no_room_to_others(tiny_student: Path, tmp_path: Path) -> None:
    """A call that a filter refuses costs no tokens, and gives none back either."""

    def filtered(call: int, body: dict[str, Any]) -> Answer:
        return failure(400, "blocked by content_filter") if call < 6 else write_samples(call, body)

    with serve(filtered) as server:
        flags = {"teacher.max_concurrency": 1, "budget.max_tokens": 3400}
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
    tokens = charged(tmp_path / "run" / "calls.sqlite")[1]
    assert "budget.max_tokens is 3400" in result.summary.stopped_by
    assert tokens.input_tokens + tokens.output_tokens <= 3400


def test_a_limit_for_replies_is_not_given_up_because_it_is_too_large(tiny_student: Path) -> None:
    too_large = failure(400, "max_tokens is too large: 60. This model supports at most 32 completion tokens")
    with (
        serve(lambda _call, _body: too_large) as server,
        pytest.raises(TeacherUnavailableError, match="max_tokens is too large"),
    ):
        distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **PAPER))
    assert len(server.requests) == 1


def test_half_a_surrogate_pair_in_a_sample_does_no_harm(tiny_student: Path, tmp_path: Path) -> None:
    text = FIRST.replace("fresh mango", "fresh \\ud83d mango")
    assert text != FIRST
    with serve(lambda _call, _body: completion(text)) as server:
        flags = {**PAPER, "pgkd.num_kd_steps": 1}
        result = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
        assert resume(tmp_path / "run").training.history == result.training.history
    assert result.training.steps[1].accepted == 2 and any("\ufffd" in row.text for row in result.training.history.rows)


def test_caps_need_a_teacher_whose_calls_are_seen(config: PGKDConfig) -> None:
    class Writer:
        def write(self, request: Any) -> Any:
            raise AssertionError

    for cap in ({"max_calls": 1}, {"max_minutes": 1.0}):
        with pytest.raises(ConfigError, match="caps need a teacher that is a chat model"):
            distill(
                TRAIN, VALIDATION, teacher=Writer(), config=config.model_copy(update={"budget": BudgetSettings(**cap)})
            )


def test_a_run_is_resumed_with_the_teacher_it_was_made_with(tiny_student: Path, tmp_path: Path) -> None:
    with serve(write_samples) as server:
        first = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server), out=tmp_path / "run")
    assert resume(tmp_path / "run", teacher="openai:m").training.history == first.training.history
    with pytest.raises(ConfigError, match="was made with openai:m, not with openai:n"):
        resume(tmp_path / "run", teacher="openai:n")


def test_a_replay_keeps_the_result_as_it_was_stored(tiny_student: Path, tmp_path: Path) -> None:
    with serve(write_samples) as server:
        distill(TRAIN, VALIDATION, config=config_for(tiny_student, server), out=tmp_path / "run")
    before = contents(tmp_path / "run")
    resume(tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_failures_that_a_run_went_on_after_are_not_repeated_by_a_replay(tiny_student: Path, tmp_path: Path) -> None:
    """A prompt that was too long, and a setting that was not taken: a finished run needs no server."""

    def short_of_context(call: int, body: dict[str, Any]) -> Answer:
        if "seed" in body:
            return failure(400, "Unsupported parameter: seed")
        if call < 3:
            return failure(400, "This model's maximum context length is 10 tokens", "context_length_exceeded")
        return completion(FIRST if call == 3 else SECOND)

    run = tmp_path / "run"
    with serve(short_of_context) as server:
        first = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **PAPER), out=run)
        assert first.training.steps[1].accepted == 2
    assert "CONTEXT" in outcomes(run / "calls.sqlite")
    again = resume(run)
    assert again.training.history == first.training.history and again.summary.teacher == first.summary.teacher


def test_an_agent_that_takes_no_tools_is_replayed_without_a_server(tiny_student: Path, tmp_path: Path) -> None:
    def no_tools(_call: int, body: dict[str, Any]) -> Answer:
        return failure(400, "m does not support tools") if "tools" in body else completion(FIRST)

    run = tmp_path / "run"
    flags = {**PAPER, "teacher.mode": "agent", "teacher.prompt": None}
    with serve(no_tools) as server:
        first = distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=run)
    assert resume(run).training.history == first.training.history


@pytest.mark.parametrize("change", ["prompt", "temperature", "model"])
def test_a_resumed_run_pays_for_no_stored_step_again(tiny_student: Path, tmp_path: Path, change: str) -> None:
    template = tmp_path / "mine.j2"
    template.write_text("Write {{ num_samples }} texts of {{ target | json }}: {{ few_shot | json }}", encoding="utf-8")
    run = tmp_path / "run"
    with serve(write_samples) as server:
        config = config_for(tiny_student, server, **{"teacher.prompt": str(template)})
        with pytest.raises(KeyboardInterrupt):
            distill(TRAIN, VALIDATION, config=config, out=run, observer=Interrupt(1))
        paid = len(server.requests)
        if change == "prompt":
            template.write_text(template.read_text() + " Please.", encoding="utf-8")
        else:
            old, new = ("temperature: 0.8", "temperature: 0.7") if change == "temperature" else ("openai:m", "openai:n")
            settings = (run / "config.yaml").read_text()
            assert old in settings
            (run / "config.yaml").write_text(settings.replace(old, new))
            (run / "meta.json").write_text((run / "meta.json").read_text().replace(old, new))
            (run / "checksums.jsonl").unlink()
        before = contents(run)
        message = "is another than when" if change == "prompt" else "is not in the run's call log"
        with pytest.raises((ConfigError, StorageError), match=message):
            resume(run)
        assert len(server.requests) == paid
    assert contents(run) == before


def test_two_servers_share_no_replies(tiny_student: Path, tmp_path: Path) -> None:
    flags = {**PAPER, "teacher.cache": str(tmp_path / "shared.sqlite"), "pgkd.num_kd_steps": 1}
    with serve(lambda _call, _body: completion(FIRST)) as one, serve(lambda _call, _body: completion(SECOND)) as other:
        first = distill(TRAIN, VALIDATION, config=config_for(tiny_student, one, **flags))
        second = distill(TRAIN, VALIDATION, config=config_for(tiny_student, other, **flags))
    assert len(other.requests) == 1 and first.training.history != second.training.history


class Named(ScriptedChatModel):
    model_name: str = ""
    max_tokens: int | None = None
    max_retries: int | None = 0


def test_chat_models_of_other_names_share_no_replies(config: PGKDConfig, tmp_path: Path) -> None:
    settings = config.teacher.model_copy(update={"cache": tmp_path / "shared.sqlite"})
    config = config.model_copy(update={"teacher": settings})
    for name in ("small", "large"):
        with Named([FIRST, SECOND], model_name=name) as teacher:  # an unasked reply is an error
            distill(TRAIN, VALIDATION, teacher=teacher, config=config, out=tmp_path / name)
        assert json.loads((tmp_path / name / "meta.json").read_text())["teacher"] == f"Named:{name}"
    with Named([], model_name="small") as teacher:
        distill(TRAIN, VALIDATION, teacher=teacher, config=config)


@pytest.mark.parametrize(
    ("fields", "cap", "message"),
    [
        ({}, {"max_tokens": 10**6}, "replies have no limit"),
        ({"max_tokens": -1}, {"max_tokens": 10**6}, "replies have no limit"),
        ({"max_tokens": 100, "max_retries": None}, {"max_calls": 10}, "max_retries=0"),
        ({"max_tokens": 100, "max_retries": 2}, {"max_tokens": 10**6}, "max_retries=0"),
        ({"max_tokens": 100}, {"max_tokens": 10**6, "max_calls": 10}, ""),
    ],
)
def test_a_cap_that_a_chat_model_cannot_keep_is_refused(
    config: PGKDConfig, fields: dict[str, Any], cap: dict[str, Any], message: str
) -> None:
    capped = config.model_copy(update={"budget": BudgetSettings(**cap)})
    if not message:
        assert distill(TRAIN, VALIDATION, teacher=Named([FIRST, SECOND], **fields), config=capped).training.history
        return
    with pytest.raises(ConfigError, match=message):
        distill(TRAIN, VALIDATION, teacher=Named([], **fields), config=capped)


@pytest.mark.parametrize("content", [None, b"no database at all, but long enough " * 50])
def test_a_cache_that_cannot_be_used_is_found_before_anything_is_paid(
    tiny_student: Path, tmp_path: Path, content: bytes | None
) -> None:
    cache = tmp_path / "cache.sqlite"
    if content is None:
        cache.mkdir()
    else:
        cache.write_bytes(content)
    with serve(write_samples) as server:
        flags = {**PAPER, "teacher.cache": str(cache)}
        with pytest.raises(StorageError, match=r"cache\.sqlite cannot be used"):
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags), out=tmp_path / "run")
        assert server.requests == []
    assert not (tmp_path / "run").exists() and (content is None or cache.read_bytes() == content)


ROWS = [Example(f"{number} apples", "fruit") for number in range(12)]
TAXONOMY = (Label("fruit"), Label("tools"))


def zero_shot(server: OpenAIServer, out: Path, **flags: Any) -> Any:
    base = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "teacher.structured": "text"}
    return evaluate_zero_shot(ROWS, TAXONOMY, build_config(flags={**base, **flags}), out)


def says_fruit(_call: int, _body: dict[str, Any]) -> Answer:
    return completion('{"class_label": "fruit"}')


@pytest.mark.parametrize(
    "caps", [{"budget.max_calls": 1}, {"budget.max_minutes": 0.1}, {"budget.max_calls": 1, "budget.max_minutes": 9}]
)
def test_nobody_waits_for_a_turn_that_the_budget_will_refuse(tmp_path: Path, caps: dict[str, Any]) -> None:
    """At six requests a minute, twelve rows would take two minutes."""
    started = time.monotonic()
    with serve(says_fruit) as server, pytest.raises(BudgetExceededError, match="1 of 12 rows are answered"):
        zero_shot(server, tmp_path / "answers.jsonl", **caps, **{"teacher.requests_per_minute": 6})
    assert len(server.requests) == 1 and time.monotonic() - started < 9


def test_caps_hold_for_all_parts_of_an_evaluation_with_failed_calls(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "answers.jsonl"

    def slow_once(call: int, body: dict[str, Any]) -> Answer:
        return Answer(200, {}, seconds=1.0) if call == 0 else says_fruit(call, body)

    with serve(slow_once) as server:
        flags = {"teacher.timeout": 0.5, "teacher.max_concurrency": 1, "budget.max_calls": 4}
        for _ in range(2):
            with pytest.raises(BudgetExceededError, match="3 of 12 rows are answered"):
                zero_shot(server, out, **flags)
        assert len(server.requests) == 4 == charged(calls_beside(out))[0]


def test_evaluations_share_no_answers(tmp_path: Path) -> None:
    """Neither where two names differ after a dot only, nor on another server after the answers were removed."""
    with serve(says_fruit) as one, serve(lambda _call, _body: completion('{"class_label": "tools"}')) as other:
        zero_shot(one, tmp_path / "m.1")
        zero_shot(one, tmp_path / "m.2")
        assert len(one.requests) == 2 * len(ROWS)
        (tmp_path / "m.1").unlink()
        assert zero_shot(other, tmp_path / "m.1").report.accuracy == 0 and len(other.requests) == len(ROWS)
        (tmp_path / "m.2").unlink()
        assert zero_shot(one, tmp_path / "m.2").report.accuracy == 1 and len(one.requests) == 2 * len(ROWS)


def test_an_interruption_while_requests_are_handed_out_stops_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = ThreadPoolExecutor.submit, 0

    def submit(self: ThreadPoolExecutor, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    slow = Answer(200, completion('{"class_label": "fruit"}').content, seconds=0.3)
    with serve(lambda _call, _body: slow) as server:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
        with pytest.raises(KeyboardInterrupt):
            zero_shot(server, tmp_path / "answers.jsonl", **{"teacher.max_concurrency": 1})
        monkeypatch.undo()
    assert len(server.requests) <= 1


def test_room_is_looked_for_as_it_is_held_back_later(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With prompt, schema and overhead; the first prompt itself is only known after the first fit."""
    monkeypatch.setattr("pgkd_agent.student.student.fit", _stand_in_fit)

    def sends(cap: int) -> bool:
        with serve(write_samples) as server:
            config = config_for(tiny_student, server, **PAPER, **{"budget.max_tokens": cap})
            distill(TRAIN, VALIDATION, config=config)
        return bool(server.requests)

    for cap in range(3000, 12000, 500):
        try:
            sends(cap)
        except BudgetExceededError:
            continue
        assert sends(round(1.15 * cap))
        return
    pytest.fail("never had room")


def _stand_in_fit(_model: Any, _tokenizer: Any, train: Any, *_args: Any, **_kwargs: Any) -> FitResult:
    return FitResult(1, 1, np.full((len(train.ids), 4), 0.25))


def test_a_failure_for_good_stops_those_who_wait_to_try_again(tiny_student: Path) -> None:
    """One request is told to wait; another learns that the key is revoked: then nobody asks any more."""
    told = threading.Event()

    def answers(call: int, body: dict[str, Any]) -> Answer:
        if call == 0:
            told.set()
            return Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "60"})
        told.wait(10)
        return Answer(401, {"error": {"message": "revoked"}}, seconds=0.3)

    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Caller, "sleep", UNPATCHED_SLEEP)
        with serve(answers) as server, pytest.raises(TeacherUnavailableError, match="credentials"):
            flags = {"teacher.max_concurrency": 2, "pgkd.pgkd_batch_size": 24}
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server, **flags))
    assert len(server.requests) == 2 and time.monotonic() - started < 30


def test_no_try_is_made_when_the_time_is_over_and_the_run_ends_with_its_best_model(tiny_student: Path) -> None:
    wait = Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "250"})
    with serve(lambda _call, _body: wait) as server:
        config = config_for(tiny_student, server, **PAPER, **{"budget.max_minutes": 3})
        result = distill(TRAIN, VALIDATION, config=config)
    assert len(server.requests) == 1 and result.training.best_step == 0
    assert "max_minutes leaves no time to try again" in result.summary.stopped_by


def test_the_check_of_a_hosted_teacher_comes_after_the_estimate_and_a_failed_one_leaves_nothing(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bedrock_server.sign_in(monkeypatch)
    told: list[int] = []

    class Told(Observer):
        def on_estimate(self, estimate: Any) -> None:
            told.append(len(server.requests))

    def revoked(call: int, _body: dict[str, Any]) -> Answer:
        return bedrock_server.error(403, "AccessDeniedException", "no")

    flags = {"teacher.spec": "bedrock_converse:anthropic.claude-3-sonnet-20240229-v1:0", "teacher.max_tokens": 4000}
    with bedrock_server.serve(revoked) as server:
        config = config_for(tiny_student, OpenAIServer(server.endpoint), **{**PAPER, **flags})
        with pytest.raises(TeacherUnavailableError, match="credentials"):
            distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run", observer=Told())
    assert told == [0] and len(server.requests) == 1
    assert server.requests[0]["inferenceConfig"]["maxTokens"] == 256
    assert not (tmp_path / "run").exists()


def test_an_interrupted_resume_leaves_the_run_as_it_was(tiny_student: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with serve(write_samples) as server:
        whole = distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server), out=tmp_path / "whole")
        flags = {"budget.max_calls": 8, "teacher.max_concurrency": 1}
        distill(TRAIN, VALIDATION, TEST, config=config_for(tiny_student, server, **flags), out=run)
        before = contents(run)
        for kd_step in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                resume(run, budget=BudgetSettings(), observer=Interrupt(kd_step))
            assert contents(run) == before
        result = resume(run, budget=BudgetSettings())
    assert result.training.history == whole.training.history and result.training.best_step == whole.training.best_step
    models = [path / "models" / "best" / "model.safetensors" for path in (run, tmp_path / "whole")]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert len(rows_of(run / "steps.jsonl")) == len(whole.training.steps)
