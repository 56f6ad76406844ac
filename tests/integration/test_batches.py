"""Batch jobs: the real clients of OpenAI and Anthropic against loopback servers, and all that goes wrong with jobs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.errors import (
    BudgetExceededError,
    ConfigError,
    TeacherRejectedError,
    TeacherUnavailableError,
)
from pgkd_agent.experiments.zero_shot import ZeroShotResult, calls_beside, evaluate_zero_shot
from pgkd_agent.teacher.calls import jobs
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.call_log import ANSWERED, SENT, Call, CallLog, RawReply
from pgkd_agent.teacher.calls.job_log import JobLog
from pgkd_agent.teacher.calls.models import open_models
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.calls.question import CallId
from pgkd_agent.teacher.calls.settling import OVERHEAD_TOKENS
from pgkd_agent.teacher.prompting.answer import LABEL_TOKENS
from pgkd_agent.teacher.prompting.tokens import most_tokens
from pgkd_agent.teacher.providers.anthropic_batch import AnthropicBatches
from pgkd_agent.teacher.providers.factory import build_teacher
from pgkd_agent.teacher.providers.openai_batch import OpenAIBatches
from pgkd_agent.types import Example, Label, TokenUsage
from tests.integration import anthropic_server, openai_server
from tests.integration.batches import Batches
from tests.integration.command_line import pgkd
from tests.integration.conftest import sentences
from tests.integration.loopback import Answer
from tests.integration.test_distill import FIRST, SECOND, openai_config
from tests.integration.test_labelling import POOL, expert
from tests.integration.test_labelling import TRAIN as LABELLED

TAXONOMY = (Label("fruit"), Label("tools"), Label("weather"))
ROWS = [
    Example("an apple", "fruit"),
    Example("a spade", "tools"),
    Example("rain", "weather"),
    Example("a pear", "fruit"),
    Example("a saw", "tools"),
    Example("hail", "weather"),
]
LABELS = {row.text: row.label for row in ROWS}


@dataclass(frozen=True)
class Provider:
    """
    Attributes:
        url: The server's field with its address.
        says: A reply, with a finish reason where one is given.
        fails: An error with this status.
        checks: Direct calls before the first question.
    """

    spec: str
    serve: Any
    url: str
    says: Callable[..., Answer]
    fails: Callable[[int, str], Answer]
    checks: int
    tokens: tuple[int, int]


OPENAI = Provider(
    "openai:m", openai_server.serve, "base_url", openai_server.completion, openai_server.failure, 0, (100, 20)
)
_ANTHROPIC_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
ANTHROPIC = Provider(
    "anthropic:m",
    anthropic_server.serve,
    "endpoint",
    anthropic_server.message,
    lambda status, text: anthropic_server.error(status, _ANTHROPIC_ERRORS.get(status, "api_error"), text),
    1,
    (80, 40),
)
BOTH = pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])


class Killed(BaseException):
    """Nothing catches it, as nothing runs in a process that is killed."""


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", anthropic_server.KEY)
    monkeypatch.setattr(jobs, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(jobs, "LONGEST_WAIT", 0.02)
    (tmp_path / "prices.yaml").write_text(
        "as_of: 2026-01-02\nmodels:\n"
        "  openai:m: {input_per_million: 1000, output_per_million: 5000}\n"
        "  anthropic:m: {input_per_million: 1000, output_per_million: 5000}\n"
        "  openai:some-model: {input_per_million: 1000, output_per_million: 5000}\n"
    )


@dataclass
class Case:
    """A provider's server, and an evaluation on it."""

    provider: Provider
    server: Any
    out: Path

    @property
    def batches(self) -> Batches:
        found: Batches = self.server.batches
        return found

    @property
    def direct(self) -> list[dict[str, Any]]:
        """Questions asked directly, without the check."""
        return [body for body in self.server.requests if "Text-to-classifiy" in json.dumps(body)]

    def lines(self) -> list[Any]:
        return [body for job in self.batches.jobs for body in job.lines.values()]

    def config(self, **flags: Any) -> PGKDConfig:
        prices = self.out.with_name("prices.yaml")
        base = {"teacher.spec": self.provider.spec, "teacher.prices": prices, "teacher.batch": True}
        return build_config(flags={**base, "teacher.base_url": getattr(self.server, self.provider.url), **flags})

    def evaluate(self, on_wait: Callable[[str], None] | None = None, **flags: Any) -> ZeroShotResult:
        return evaluate_zero_shot(ROWS, TAXONOMY, self.config(**flags), self.out, on_wait=on_wait)

    def rows(self) -> list[dict[str, Any]]:
        """Of the call log, without the check."""
        log = CallLog(calls_beside(self.out))
        rows = [row for row in log if row["request_index"] >= 0]
        log.close()
        return rows


def text_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return str(text.rpartition("Text-to-classifiy: ")[2])


@pytest.fixture
def case(provider: Provider, tmp_path: Path) -> Iterator[Case]:
    with serving(provider, tmp_path) as opened:
        yield opened


class serving:
    """A server that labels rightly but for what `answers` says of a text."""

    def __init__(
        self, provider: Provider, folder: Path, answers: dict[str, Answer] | None = None, out: str = "answers"
    ) -> None:
        def answer(_call: int, body: dict[str, Any]) -> Answer:
            text = text_of(body)
            label = json.dumps({"class_label": LABELS.get(text, "none")})
            return (answers or {}).get(text) or provider.says(label)

        self._serving = provider.serve(answer)
        self._provider, self._out = provider, folder / f"{out}.jsonl"

    def __enter__(self) -> Case:
        return Case(self._provider, self._serving.__enter__(), self._out)

    def __exit__(self, *ended: Any) -> None:
        self._serving.__exit__(*ended)


@BOTH
def test_a_job_asks_what_direct_calls_ask_for_half_the_price(case: Case, tmp_path: Path) -> None:
    plain = case.evaluate(**{"teacher.batch": False})
    asked = {text_of(body): body for body in case.direct}
    case.server.requests.clear()
    case.out = tmp_path / "again.jsonl"
    said: list[str] = []
    result = case.evaluate(said.append)
    (job,) = case.batches.jobs
    (first,) = case.direct  # so that what the model rejects is known before many wait for it
    in_job = {text_of(body): body for body in job.lines.values()}
    assert {**in_job, text_of(first): first} == asked and len(in_job) == 5
    assert result.report == plain.report and result.report.accuracy == 1 and result.predicted == plain.predicted
    tokens_in, tokens_out = case.provider.tokens
    assert result.usage == TokenUsage(6 * tokens_in, 6 * tokens_out, 0, 5 * tokens_in, 5 * tokens_out)
    assert f"of these {5 * tokens_in} and {5 * tokens_out} in batch jobs" in str(result.usage)
    prices = load_prices(tmp_path / "prices.yaml")
    full, half = (prices.cost(case.provider.spec, used) for used in (plain.usage, result.usage))
    assert full and half == pytest.approx(full * (1 + 5 * 0.5) / 6)
    assert said == [f"waiting for batch job {job.id} (0 of 5 done)"]
    assert [row["outcome"] for row in case.rows()] == [ANSWERED] * 6


def test_callbacks_see_each_call_once(tmp_path: Path) -> None:
    class Counting(BaseCallbackHandler):
        def __init__(self) -> None:
            self.begun: list[int] = []
            self.ended = 0

        def on_chat_model_start(self, *_: Any, metadata: Any = None, **__: Any) -> None:
            self.begun.append(metadata["request_index"])

        def on_llm_end(self, *_: Any, **__: Any) -> None:
            self.ended += 1

        def on_llm_error(self, *_: Any, **__: Any) -> None:
            self.ended = -100

    seen = Counting()
    with serving(OPENAI, tmp_path) as case:
        RunnableLambda(lambda _: case.evaluate()).invoke(None, {"callbacks": [seen]})
    assert sorted(seen.begun) == [1, 2, 3, 4, 5, 6] and seen.ended == 6


@BOTH
def test_what_is_answered_is_read_as_in_a_direct_call(provider: Provider, tmp_path: Path) -> None:
    """Refusals, replies that are cut off, answers in a tool and without a text: row for row the same log."""
    cut = ("length", "max_tokens")[provider is ANTHROPIC]
    refused = ("content_filter", "refusal")[provider is ANTHROPIC]
    odd = {"a spade": provider.says("", refused), "rain": provider.says('{"class_la', cut), "a saw": provider.says("")}
    if provider is ANTHROPIC:
        odd["hail"] = anthropic_server.tool_use("answer", {"class_label": "weather"})
    logs = []
    for batch in (False, True):
        with serving(provider, tmp_path, odd, f"{batch}") as case:
            result = case.evaluate(**{"teacher.batch": batch})
            rows = sorted(case.rows(), key=lambda row: row["request_index"])
            kept = ("key", "settings", "messages", "outcome", "error", "reply", "finish_reason", "charged_output")
            logs.append([{name: row[name] for name in kept} for row in rows])
            assert result.unresolved == (2, 3, 5)
    direct, by_job = ([{**row, "key": ""} for row in log] for log in logs)  # keys hold the address of the server
    assert direct == by_job


@BOTH
def test_a_run_that_is_killed_while_it_waits_takes_up_the_job(case: Case) -> None:
    def kill(_what: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        case.evaluate(kill)
    waiting = [row["outcome"] for row in case.rows()]
    assert sorted(waiting) == sorted([ANSWERED, *[SENT] * 5])
    result = case.evaluate()
    assert result.report.accuracy == 1 and len(case.batches.jobs) == 1 and len(case.direct) == 1
    tokens_in, tokens_out = case.provider.tokens
    assert result.usage == TokenUsage(6 * tokens_in, 6 * tokens_out, 0, 5 * tokens_in, 5 * tokens_out)
    assert [row["charged_output"] for row in case.rows()] == [tokens_out] * 6, "and nothing stays charged in full"


def kill_before_the_id_is_noted(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(JobLog, "note", kill)
        with pytest.raises(Killed):
            case.evaluate()


@BOTH
def test_a_kill_between_the_job_and_its_id_leaves_a_job_that_is_found(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_before_the_id_is_noted(case, monkeypatch)
    assert len(case.batches.jobs) == 1
    stranger = case.batches.make("pgkd-other", {f"x-{number}": {} for number in range(4)})
    assert case.evaluate().report.accuracy == 1
    assert [job.id for job in case.batches.jobs if job.lines and job is not stranger] == ["batch_0"]


@BOTH
def test_a_kill_before_the_job_is_made_asks_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(jobs.SentJobs, "send", kill)
        with pytest.raises(Killed):
            case.evaluate()
    assert case.batches.jobs == [] and len(case.rows()) == 6
    assert case.evaluate(**{"budget.max_calls": 8}).report.accuracy == 1
    assert len(case.batches.jobs) == 1 and len(case.rows()) == 6


@BOTH
def test_a_job_that_a_gateway_lost_sight_of_is_not_made_again(case: Case) -> None:
    case.batches.creates = [replace(case.provider.fails(504, "gateway time-out"), headers={"Retry-After": "0"})]
    assert case.evaluate().report.accuracy == 1
    assert len(case.batches.jobs) == 1


@BOTH
def test_a_job_that_may_be_there_is_kept_where_looking_for_it_fails(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ConnectError(Exception):
        """What is known never to have been sent, unlike the try before it."""

    def fail(*_: Any) -> None:
        raise ConnectError

    case.batches.creates = [replace(case.provider.fails(504, "gateway time-out"), headers={"Retry-After": "0"})]
    with monkeypatch.context() as patched:
        for kind in (OpenAIBatches, AnthropicBatches):
            patched.setattr(kind, "find", fail)
        with pytest.raises(TeacherUnavailableError):
            case.evaluate()
    assert case.evaluate().report.accuracy == 1
    assert len(case.batches.jobs) == 1


@BOTH
def test_an_older_job_of_another_run_is_not_taken_for_ones_own(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_before_the_id_is_noted(case, monkeypatch)
    (own,) = case.batches.jobs
    bodies = {f"pgkd-other-{number}": body for number, body in enumerate(own.lines.values())}
    stranger = case.batches.make("pgkd-other", bodies)
    case.batches.jobs[:] = [stranger, own]
    stranger.made -= 60
    assert case.evaluate().report.accuracy == 1
    assert case.batches.jobs == [stranger, own] and len(case.direct) == 1


@BOTH
def test_what_expired_is_asked_for_again(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.batches.ends, case.batches.left_out = ("expired", "completed"), {0: [0, 3]}
    assert case.evaluate().report.accuracy == 1
    first, second = case.batches.jobs
    assert [*second.lines.values()] == [body for place, body in enumerate(first.lines.values()) if place in (0, 3)]
    assert "batch job batch_0 brought 3 of 5 answers (expired); the rest is asked for in a next one" in caplog.text
    assert sum(row["outcome"] == "PASSING" and row["charged_input"] == 0 for row in case.rows()) == 2


@BOTH
def test_jobs_that_always_expire_end_the_run_and_keep_what_came(case: Case) -> None:
    case.batches.ends, case.batches.left_out = ("expired",), {number: [0] for number in range(3)}
    with pytest.raises(TeacherUnavailableError, match=r"0 of 1 answers \(expired\), as 3 jobs in a row did not"):
        case.evaluate()
    assert [len(job.lines) for job in case.batches.jobs] == [5, 1, 1]
    assert case.evaluate().report.accuracy == 1  # the fourth leaves nothing out
    assert len(case.lines()) == 8 and len(case.direct) == 1


@BOTH
def test_a_job_that_is_cancelled_is_not_sent_again_by_itself(case: Case) -> None:
    case.batches.ends, case.batches.left_out = ("cancelled", "completed"), {0: [2]}
    with pytest.raises(TeacherUnavailableError, match="brought 4 of 5 answers: somebody cancelled it"):
        case.evaluate()
    assert case.evaluate().report.accuracy == 1
    assert [text_of(body) for body in case.lines()[5:]] == [text_of(case.lines()[2])] and len(case.direct) == 1


@BOTH
def test_results_that_nobody_waits_for_are_left_out(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.batches.stranger = True
    assert case.evaluate().report.accuracy == 1
    assert "left out 1 result of requests that it was not sent" in caplog.text


@BOTH
def test_rate_limits_and_errors_on_a_look_are_waited_out(case: Case) -> None:
    slow = replace(case.provider.fails(429, "slow down"), headers={"Retry-After": "0.01"})
    case.batches.failures = [slow, case.provider.fails(500, "oops"), slow, slow, slow, slow]
    assert case.evaluate().report.accuracy == 1
    assert case.batches.failures == [] and len(case.batches.jobs) == 1


@BOTH
def test_a_job_that_is_not_there_any_more_is_told_and_not_paid_again(case: Case) -> None:
    def forget(_what: str) -> None:
        case.batches.jobs.clear()

    for _ in range(2):
        with pytest.raises(TeacherUnavailableError, match=r"batch job batch_0, sent at .* is not there any more; take"):
            case.evaluate(forget)
    assert case.batches.jobs == []


@BOTH
def test_lines_that_failed_are_asked_again_or_end_the_run(provider: Provider, tmp_path: Path) -> None:
    answers = {"a spade": provider.fails(429, "busy"), "hail": provider.fails(500, "oops")}
    with serving(provider, tmp_path, answers) as case:
        looked: list[int] = []

        def mend(_what: str) -> None:
            looked.append(len(case.batches.jobs))
            if len(case.batches.jobs) == 3:
                answers.clear()

        assert case.evaluate(mend).report.accuracy == 1
        assert [len(job.lines) for job in case.batches.jobs] == [5, 2, 2]
        answers["a spade"] = provider.fails(429, "busy")
        case.out = tmp_path / "again.jsonl"
        with pytest.raises(TeacherUnavailableError, match="rate limit"):
            case.evaluate()
        assert [len(job.lines) for job in case.batches.jobs[3:]] == [5, 1, 1]
        answers["a spade"] = provider.fails(401, "revoked")
        with pytest.raises(TeacherUnavailableError, match="credentials"):
            case.evaluate()
        assert len(case.batches.jobs) == 7, "it is not asked again"


def test_a_prompt_that_is_too_long_is_shortened_in_a_next_job(tmp_path: Path) -> None:
    shots = [Example(f"{row.text} again and again", row.label) for row in ROWS]

    def answer(_call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        if prompt.count("again and again") > 2:
            return openai_server.failure(400, "too long", "context_length_exceeded")
        return openai_server.completion('{"class_label": "fruit"}')

    (tmp_path / "shots.j2").write_text("{{ few_shot | tojson }} {{ taxonomy | length }} Text-to-classifiy: {{ text }}")
    with OPENAI.serve(answer) as server:
        case = Case(OPENAI, server, tmp_path / "answers.jsonl")
        config = case.config(**{"zero_shot.prompt": str(tmp_path / "shots.j2")})
        result = evaluate_zero_shot(ROWS, TAXONOMY, config, case.out, few_shot=shots)
    assert result.unresolved == ()
    assert [len(job.lines) for job in case.batches.jobs] == [5, 5, 5] and len(case.direct) == 3
    assert [json.dumps(body).count("again and again") for body in case.lines()[::5]] == [6, 3, 2]


@BOTH
def test_what_a_model_rejects_is_left_out_before_a_job_is_sent(provider: Provider, tmp_path: Path) -> None:
    def answer(_call: int, body: dict[str, Any]) -> Answer:
        if "temperature" in body:
            return provider.fails(400, "Unsupported value: 'temperature' does not support 0")
        return provider.says(json.dumps({"class_label": LABELS.get(text_of(body))}))

    with provider.serve(answer) as server:
        case = Case(provider, server, tmp_path / "answers.jsonl")
        assert case.evaluate().report.accuracy == 1
    assert len(case.direct) <= 2 and len(case.lines()) == 5
    assert not any("temperature" in body for body in case.lines())


def test_a_job_that_is_too_large_for_the_account_is_sent_in_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(OPENAI, tmp_path) as case:
        case.batches.ends = ("failed", "completed")
        assert case.evaluate().report.accuracy == 1
        assert [len(job.lines) for job in case.batches.jobs] == [5, 2, 2, 1] and len(case.rows()) == 6
    assert "is refused (Enqueued token limit reached for m (token_limit_exceeded)); sending 2 requests" in caplog.text


def test_a_job_that_is_refused_costs_nothing_and_says_why(tmp_path: Path) -> None:
    with serving(OPENAI, tmp_path) as case:
        case.batches.ends = ("failed",)
        with pytest.raises(TeacherUnavailableError, match=r"refused batch job .*Enqueued token limit.* nothing of it"):
            case.evaluate()
        assert [row["outcome"] for row in case.rows()] == [ANSWERED]


@BOTH
def test_caps_hold_and_a_higher_one_goes_on(case: Case) -> None:
    with pytest.raises(BudgetExceededError, match=r"max_calls is 4.* rows are answered"):
        case.evaluate(**{"budget.max_calls": 4})
    asked = len(case.lines()) + len(case.server.requests)
    assert asked == 4 and len(case.out.read_text().splitlines()) == 1 + 4 - case.provider.checks
    assert case.evaluate(**{"budget.max_calls": 9}).report.accuracy == 1
    assert len(case.lines()) + len(case.direct) == 6


def test_a_cap_on_money_counts_the_price_of_jobs_and_makes_several(tmp_path: Path) -> None:
    """What a call could take is held back for all calls of a job: as many go into one as there is room for."""
    with serving(OPENAI, tmp_path) as case:
        case.evaluate()
        sent = next(row for row in case.rows() if row["batch"])
        asked = json.dumps([json.loads(sent["messages"]), json.loads(sent["settings"])])
        prices = load_prices(tmp_path / "prices.yaml")
        most = TokenUsage(most_tokens(asked) + OVERHEAD_TOKENS, LABEL_TOKENS)
        full = prices.cost("openai:m", most) or 0
        answered = prices.cost("openai:m", TokenUsage(100, 20).in_batch()) or 0
        case.out = tmp_path / "again.jsonl"
        case.batches.jobs.clear()
        result = case.evaluate(**{"budget.max_usd": 2.1 * full})
        assert result.report.accuracy == 1 and [len(job.lines) for job in case.batches.jobs] == [3, 2]
        cost = prices.cost("openai:m", result.usage)
        assert cost == pytest.approx(7 * answered)
        case.out = tmp_path / "poor.jsonl"
        with pytest.raises(BudgetExceededError, match=r"max_usd is .* 0 of 6 rows are answered"):
            case.evaluate(**{"budget.max_usd": 0.9 * full})


def test_a_cap_on_time_leaves_the_job_at_the_provider(tmp_path: Path) -> None:
    with serving(OPENAI, tmp_path) as case:
        case.batches.looks = 10_000
        with pytest.raises(BudgetExceededError, match=r"no time to wait: batch job batch_0 goes on at the provider"):
            case.evaluate(**{"budget.max_minutes": 0.01})
        case.batches.jobs[0].looks = 0
        assert case.evaluate().report.accuracy == 1 and len(case.batches.jobs) == 1


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    with serving(OPENAI, tmp_path) as case:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(json.dumps({"text": row.text, "label": row.label}) for row in ROWS))
        command = (
            *("evaluate", "--teacher", "openai:m", "--base-url", case.server.base_url, str(file)),
            *("--batch", "--out", str(case.out), "--set", f"teacher.prices={tmp_path / 'prices.yaml'}"),
        )
        case.batches.looks = 10_000
        look = case.batches.look

        def interrupt(job: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            case.batches.look = look  # type: ignore[method-assign]
            return job

        case.batches.look = interrupt  # type: ignore[method-assign]
        ended = pgkd(*command)
        assert ended.returncode == 130, ended.stderr
        assert "batch job batch_0 goes on at the provider; the next start takes its results" in ended.stderr
        assert "the same command goes on where it was, without paying a call twice" in ended.stderr
        case.batches.jobs[0].looks = 0
        again = pgkd(*command)
        assert again.returncode == 0 and len(case.batches.jobs) == 1, again.stderr
        assert "USD by batch jobs" in again.stderr and "in batch jobs" in again.stdout


def test_the_writing_requests_of_a_run_go_into_jobs_and_its_bill_is_half(tiny_student: Path, tmp_path: Path) -> None:
    replies = iter([FIRST, SECOND])
    with openai_server.serve(lambda _call, _body: openai_server.completion(next(replies))) as server:
        flags = {"teacher.batch": True, "teacher.prices": tmp_path / "prices.yaml", "budget.max_usd": 100}
        config = openai_config(tiny_student, server.base_url, **flags)
        result = distill(sentences(20, 0), sentences(5, 1), config=config)
        assert [len(job.lines) for job in server.batches.jobs] == [1, 1] and server.requests == []
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    summary, half = result.summary, pytest.approx((200 * 1000 + 40 * 5000) / 1e6 / 2)
    assert summary.teacher.usage == TokenUsage(200, 40).in_batch() and summary.teacher.cost == half
    assert str(summary.estimate).endswith("by batch jobs") and summary.estimate and summary.estimate.cost
    tokens = summary.estimate.input_tokens[0], summary.estimate.output_tokens[0]
    prices = load_prices(tmp_path / "prices.yaml")
    assert summary.estimate.cost[0] == prices.cost("openai:some-model", TokenUsage(*tokens).in_batch())


def test_what_follows_from_a_reply_is_asked_directly(tiny_student: Path) -> None:
    one = json.dumps({"samples": json.loads(FIRST)["samples"][:1]})

    def answer(call: int, _body: dict[str, Any]) -> Answer:
        return openai_server.completion(one if call < 0 else FIRST)

    with openai_server.serve(answer) as server:
        config = openai_config(tiny_student, server.base_url, **{"teacher.batch": True, "pgkd.num_kd_steps": 1})
        distill(sentences(10, 0), sentences(5, 1), config=config)
        assert [len(job.lines) for job in server.batches.jobs] == [1]
        assert [len(body["messages"]) for body in server.requests] == [3], "the plea for more goes on with the talk"


def test_texts_are_labelled_by_jobs_and_the_table_is_the_same(tiny_student: Path, tmp_path: Path) -> None:
    from tests.integration.conftest import tiny_config

    run = tmp_path / "run"
    distill(LABELLED, sentences(5, 1), sentences(6, 2), steps=0, config=tiny_config(tiny_student), out=run)
    (tmp_path / "pool.txt").write_text("\n".join(POOL), encoding="utf-8")
    tables = []
    for batch in ([], ["--batch"]):
        with openai_server.serve(expert) as server:
            table = tmp_path / f"table{len(batch)}.csv"
            done = pgkd(
                *("annotate", str(run), f"{tmp_path}/pool.txt", "--teacher", "openai:expert", "--labels", "7"),
                *("--base-url", server.base_url, "--out", str(table), *batch),
            )
            assert done.returncode == 0, done.stderr
            jobs_made = [len(job.lines) for job in server.batches.jobs]
        tables.append(table.read_text(encoding="utf-8"))
    assert tables[0] == tables[1]
    assert jobs_made == [len(LABELLED) - 1, 7], "the gold rows, then the texts"


@pytest.mark.parametrize("spec", ["local:smollm2", "ollama:m", "bedrock_converse:m", "azure_openai:m"])
def test_providers_without_batch_jobs_are_refused_with_those_that_have_them(spec: str) -> None:
    settings = build_config(flags={"teacher.spec": spec, "teacher.batch": True}).teacher
    with pytest.raises(ConfigError, match=r"known here of anthropic, openai alone"):
        build_teacher(settings, 10)


def test_what_does_not_go_with_jobs_is_refused(tiny_student: Path, tmp_path: Path) -> None:
    flags = {"teacher.batch": True, "teacher.mode": "agent", "teacher.prompt": "agent"}
    config = openai_config(tiny_student, "http://127.0.0.1:9/v1", **flags)
    with pytest.raises(ConfigError, match=r"`teacher.batch` does not go with `teacher.mode=agent`"):
        distill(sentences(20, 0), sentences(5, 1), config=config)
    model = ChatOpenAI(model="m", base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)  # type: ignore[arg-type]
    config = openai_config(tiny_student, "http://127.0.0.1:9/v1", **{"teacher.batch": True})
    with pytest.raises(ConfigError, match="a chat model object of your own"):
        distill(sentences(20, 0), sentences(5, 1), teacher=model, config=config)
    with openai_server.serve(lambda _call, _body: openai_server.completion("{}")) as server:
        server.batches.creates = [openai_server.failure(404, "Not Found")]
        case = Case(OPENAI, server, tmp_path / "answers.jsonl")
        with pytest.raises(ConfigError, match=r"takes no batch jobs \(HTTP 404\); leave out `teacher.batch`"):
            case.evaluate()
        assert len(case.rows()) == 1, "nothing of the job is charged"


def test_a_question_that_is_rejected_is_an_error_of_its_own(tmp_path: Path) -> None:
    with serving(OPENAI, tmp_path, {"hail": openai_server.failure(400, "Invalid value: 'x'")}) as case:
        with pytest.raises(TeacherRejectedError, match="Invalid value"):
            case.evaluate()
        assert sum(row["outcome"] == ANSWERED for row in case.rows()) == 5


def test_ten_thousand_lines_out_of_order(tmp_path: Path) -> None:
    """What grows with a job, without the model between: file up, rows in the log, files down."""
    log = CallLog(tmp_path / "calls.sqlite")
    calls = [
        (
            f"key-{number}",
            Call(0, number, 0, "openai:m", "", {}, [{"content": f"été {number}\u2028"}]),
            TokenUsage(9, 9),
        )
        for number in range(10_000)
    ]
    job = JobLog(log).begin("openai:m", calls)
    bodies = {job.request_id(key): {"text": f"été {call.request_index}\u2028"} for key, call, _ in calls}
    with openai_server.serve(lambda _call, _body: openai_server.completion("{}")) as server:
        server.batches.answer = lambda body: Answer(200, body)
        provider = OpenAIBatches(ChatOpenAI(model="m", base_url=server.base_url, api_key="none"))  # type: ignore[arg-type]
        name = provider.create(job.name, bodies)
        assert not provider.look(name).is_over and provider.look(name).is_over
        results = {result.request_id: result for result in provider.results(name)}
    assert {number: result.body for number, result in results.items()} == bodies
    assert [*results] != [*bodies]
    reply = RawReply("yes", "stop", TokenUsage(3, 1).in_batch(), 0.0)
    JobLog(log).end(job, [(job.rows[key].row, ANSWERED, reply.usage, reply, "") for key, _, _ in calls])
    assert log.find("key-9999") == reply and JobLog(log).under_way("openai:m") == []
    assert [*log.charged()] == [("openai:m", 10_000, TokenUsage(30_000, 10_000).in_batch())]
    log.close()


def test_what_nobody_asks_for_now_stays_in_its_job(tmp_path: Path) -> None:
    """As where the same command is given again for fewer texts, and then for as many as before."""

    def kill(_what: str) -> None:
        raise Killed

    with serving(OPENAI, tmp_path) as case:
        settings = case.config().teacher

        def ask(numbers: list[int], on_wait: Callable[[str], None] | None = None) -> list[int]:
            budget = Budget(case.config().budget, load_prices())
            with open_models(None, [(settings, 50)], 0, budget, tmp_path / "calls", on_wait=on_wait) as (model,):
                prompts = {number: f"Text-to-classifiy: {ROWS[number].text}" for number in numbers}
                chains = {number: model.with_config(CallId(0, number).config("")) for number in numbers}
                answered = model.caller.ask_all(lambda one: chains[one].invoke(prompts[one]).text, numbers)
                return sorted(number for number, text in answered if "class_label" in text)

        with pytest.raises(Killed):
            ask([0, 1, 2, 3, 4], kill)
        assert ask([0, 1, 2]) == [0, 1, 2] and ask([0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]
        assert len(case.batches.jobs) == 1 and len(case.direct) == 1
