"""Whole distillations with the real clients of Azure OpenAI, Anthropic and Ollama against loopback servers."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig, TeacherSettings
from pgkd_agent.errors import ConfigError, TeacherContextError, TeacherUnavailableError
from pgkd_agent.teacher.calls.calling import CHECK_REPLY_TOKENS, Caller
from pgkd_agent.teacher.calls.failures import Kind, classify, may_be_billed
from pgkd_agent.teacher.providers.factory import build_teacher
from tests.integration import anthropic_server, ollama_server, openai_server
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import completion, failure
from tests.integration.test_distill import FIRST, SECOND, openai_config

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)
AZURE_KEY, OLLAMA_KEY = "azure-planted-secret", "ollama-planted-secret"
DEPLOYMENT = "our-gpt"
CONTRACT = '{"samples": [{"text": "...", "label": "..."}]}'
ONE = json.dumps({"samples": json.loads(FIRST)["samples"][:1]})

Servers = Callable[[Callable[[int, dict[str, Any]], Answer]], Any]


@dataclass(frozen=True)
class Provider:
    """
    Attributes:
        url: The server's field with the address for `--base-url`.
        says: A reply with samples; cut off where the second argument is true.
        checks: Calls of the model before the first request: none where the check is free.
        usage: Tokens of a reply, in and out.
        reasons: Finish reasons of a whole reply and of one that was cut off.
        absent: What the server says of a model that it does not have.
    """

    spec: str
    variables: dict[str, str]
    serve: Servers
    url: str
    says: Callable[[str, bool], Answer]
    checks: int
    usage: tuple[int, int]
    reasons: tuple[str, str]
    absent: Answer

    def config(self, student: Path, server: Any, **flags: Any) -> PGKDConfig:
        fixed = {
            "teacher.spec": self.spec,
            "teacher.base_url": getattr(server, self.url),
            "teacher.structured": "auto",
            "teacher.max_tokens": 500,
            "teacher.context_tokens": 8192,
        }
        return tiny_config(student, **{**fixed, **flags})

    @contextmanager
    def answering(self, *answers: Answer) -> Iterator[Any]:
        """A server that lets itself be checked, then gives the answers in turn, the last one again and again."""
        script = [self.says("ok", False)] * self.checks + list(answers)
        with self.serve(lambda call, _body: script[min(call, len(script) - 1)]) as server:
            yield server

    def requests(self, server: Any) -> list[dict[str, Any]]:
        """After those that check."""
        return list(server.requests[self.checks :])


def anthropic_says(text: str, cut: bool) -> Answer:
    if text == "ok":
        return anthropic_server.message(text)
    return anthropic_server.tool_use("answer", json.loads(text), "max_tokens" if cut else "tool_use")


AZURE = Provider(
    f"azure_openai:{DEPLOYMENT}",
    {"AZURE_OPENAI_API_KEY": AZURE_KEY, "OPENAI_API_VERSION": "2024-10-21"},
    openai_server.serve,
    "address",
    lambda text, cut: completion(text, "length" if cut else "stop"),
    checks=1,
    usage=(100, 20),
    reasons=("stop", "length"),
    absent=failure(404, "The API deployment for this resource does not exist.", "DeploymentNotFound"),
)
ANTHROPIC = Provider(
    "anthropic:claude-test",
    {"ANTHROPIC_API_KEY": anthropic_server.KEY},
    anthropic_server.serve,
    "endpoint",
    anthropic_says,
    checks=1,
    usage=(80, 40),
    reasons=("tool_use", "max_tokens"),
    absent=anthropic_server.error(404, "not_found_error", "model: claude-test"),
)
OLLAMA = Provider(
    f"ollama:{ollama_server.MODEL}",
    {"OLLAMA_API_KEY": OLLAMA_KEY},
    lambda answer: ollama_server.serve(answer, OLLAMA_KEY),
    "endpoint",
    lambda text, cut: ollama_server.chat(text, "length" if cut else "stop"),
    checks=0,
    usage=(70, 50),
    reasons=("stop", "length"),
    absent=Answer(0, {}),  # its server looks at the name itself
)
ALL = pytest.mark.parametrize("provider", [AZURE, ANTHROPIC, OLLAMA], ids=["azure", "anthropic", "ollama"])


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in (AZURE, ANTHROPIC, OLLAMA):
        for name, value in provider.variables.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(Caller, "sleep", lambda _self, wait: seconds.append(wait))
    return seconds


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        pytest.fail("trained before the teacher was checked")

    monkeypatch.setattr("pgkd_agent.student.student.fit", fail)


def logged(run: Path, columns: str) -> list[Any]:
    with sqlite3.connect(run / "calls.sqlite") as calls:
        only = "kd_step > 0 AND outcome = 'answered'"
        rows = calls.execute(f"SELECT {columns} FROM calls WHERE {only} ORDER BY id").fetchall()
    calls.close()
    return rows


def assert_holds_no_secret(run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"planted-secret" in path.read_bytes()]


def labels_of(schema: dict[str, Any]) -> list[str]:
    labels: list[str] = schema["properties"]["samples"]["items"]["properties"]["label"]["enum"]
    return labels


def azure_travels(server: openai_server.OpenAIServer, body: dict[str, Any], later: dict[str, Any]) -> None:
    path = f"/openai/deployments/{DEPLOYMENT}/chat/completions?api-version=2024-10-21"
    assert set(server.paths) == {path} and set(server.keys) == {AZURE_KEY}
    assert body["temperature"] == 0.8 and body["max_completion_tokens"] == 500 and "max_tokens" not in body
    assert body["seed"] != later["seed"]
    form = body["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert labels_of(form["json_schema"]["schema"]) == sorted(TOPICS)


def anthropic_travels(_server: Any, body: dict[str, Any], _later: dict[str, Any]) -> None:
    assert body["model"] == "claude-test"
    assert body["temperature"] == 0.8 and body["max_tokens"] == 500 and "seed" not in body
    (tool,) = body["tools"]
    assert tool["name"] == "answer" and labels_of(tool["input_schema"]) == sorted(TOPICS)
    assert body["tool_choice"] == {"type": "any"}


def ollama_travels(server: ollama_server.OllamaServer, body: dict[str, Any], later: dict[str, Any]) -> None:
    assert server.shown == [ollama_server.MODEL]
    options = body["options"]
    assert options["temperature"] == 0.8 and options["num_predict"] == 500 and options["num_ctx"] == 8192
    assert options["seed"] != later["options"]["seed"]
    assert body["truncate"] is False and body["shift"] is False and body["stream"] is True
    assert labels_of(body["format"]) == sorted(TOPICS)
    assert body["format"]["properties"]["samples"]["minItems"] == 4


@pytest.mark.parametrize(
    ("provider", "travels"),
    [(AZURE, azure_travels), (ANTHROPIC, anthropic_travels), (OLLAMA, ollama_travels)],
    ids=["azure", "anthropic", "ollama"],
)
def test_a_whole_distillation(provider: Provider, travels: Any, tiny_student: Path, tmp_path: Path) -> None:
    with provider.answering(provider.says(FIRST, False), provider.says(SECOND, False)) as server:
        config = provider.config(tiny_student, server)
        result = distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    body, later = provider.requests(server)
    travels(server, body, later)
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    usage = result.summary.teacher
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, *(2 * n for n in provider.usage))
    (message,) = body["messages"]
    assert message["role"] == "user" and message["content"].startswith("You are a Teacher model for a Student LM")
    assert CONTRACT not in message["content"]
    replies = logged(tmp_path / "run", "reply")
    assert [json.loads(row[0]) for row in replies] == [json.loads(FIRST), json.loads(SECOND)]
    told = logged(tmp_path / "run", "finish_reason, input_tokens, output_tokens")
    assert told == [(provider.reasons[0], *provider.usage)] * 2
    assert_holds_no_secret(tmp_path / "run")


@ALL
def test_of_a_cut_reply_whole_samples_are_kept_and_the_rest_is_asked_for(
    provider: Provider, tiny_student: Path, tmp_path: Path
) -> None:
    cut = ONE if provider is ANTHROPIC else FIRST[:130]
    with provider.answering(provider.says(cut, True), provider.says(SECOND, False)) as server:
        config = provider.config(tiny_student, server, **{"pgkd.num_kd_steps": 1})
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert (result.training.steps[1].parsed, result.training.steps[1].num_requests) == (1 + 3, 2)
    talk = provider.requests(server)[1]["messages"]
    assert [message["role"] for message in talk] == ["user", "assistant", "user"]
    assert json.loads(talk[1]["content"]) == json.loads(ONE)
    assert talk[2]["content"].startswith("Write 3 more of the same kind")
    whole, was_cut = provider.reasons
    assert logged(tmp_path / "run", "finish_reason") == [(was_cut,), (whole,)]


def test_a_tool_call_that_was_cut_before_its_first_sample_is_complained_about(tiny_student: Path) -> None:
    """Anthropic parses what there is of the arguments: nothing, then."""
    with ANTHROPIC.answering(anthropic_says("{}", True), anthropic_says(FIRST, False)) as server:
        config = ANTHROPIC.config(tiny_student, server, **{"pgkd.num_kd_steps": 1})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].accepted == 2
    assert "It was cut off: write shorter texts." in ANTHROPIC.requests(server)[1]["messages"][-1]["content"]


def test_of_a_cut_tool_call_that_is_no_json_whole_samples_are_kept(tiny_student: Path) -> None:
    """OpenAI's arguments are a text; LangChain puts those it cannot parse aside."""
    cut = openai_server.tool_call("answer", FIRST[:130], "length")
    with AZURE.answering(cut, openai_server.tool_call("answer", SECOND)) as server:
        flags = {"pgkd.num_kd_steps": 1, "teacher.structured": "tool"}
        result = distill(TRAIN, VALIDATION, config=AZURE.config(tiny_student, server, **flags))
    assert (result.training.steps[1].parsed, result.training.steps[1].num_requests) == (1 + 3, 2)
    body = AZURE.requests(server)[0]
    assert labels_of(body["tools"][0]["function"]["parameters"]) == sorted(TOPICS)
    assert json.loads(AZURE.requests(server)[1]["messages"][1]["content"]) == json.loads(ONE)


def azure_calls(name: str, arguments: dict[str, Any]) -> Answer:
    return openai_server.tool_call(name, json.dumps(arguments))


@pytest.mark.parametrize(
    ("provider", "calls"),
    [(AZURE, azure_calls), (ANTHROPIC, anthropic_server.tool_use), (OLLAMA, ollama_server.tool_call)],
    ids=["azure", "anthropic", "ollama"],
)
def test_an_agent_looks_up_the_report_and_writes(
    provider: Provider, calls: Any, tiny_student: Path, tmp_path: Path
) -> None:
    answers = [calls("get_classification_report", {"worst": 2}), calls("Samples", json.loads(FIRST))]
    flags = {"teacher.mode": "agent", "teacher.prompt": None, "pgkd.num_kd_steps": 1}
    with provider.answering(*answers) as server:
        config = provider.config(tiny_student, server, **flags)
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 2
    first, second = provider.requests(server)
    assert {"get_classification_report", "Samples"} <= {
        str(tool.get("name") or tool["function"]["name"]) for tool in first["tools"]
    }
    assert "f1-score" in json.dumps(second["messages"]) and "f1-score" not in json.dumps(first["messages"])
    assert logged(tmp_path / "run", "input_tokens, output_tokens") == [provider.usage] * 2


def test_words_around_a_tool_call_and_a_second_call_cost_nothing(tiny_student: Path) -> None:
    answer = anthropic_says(FIRST, False)
    assert isinstance(answer.content, dict)
    (call,) = answer.content["content"]
    again = {**call, "id": "toolu_2", "input": json.loads(SECOND)}
    answer.content["content"] = [{"type": "text", "text": "Here are {some} samples."}, call, again]
    with ANTHROPIC.answering(answer) as server:
        config = ANTHROPIC.config(tiny_student, server, **{"pgkd.num_kd_steps": 1})
        result = distill(TRAIN, VALIDATION, config=config)
    assert result.training.steps[1].parsed == 4 + 3


FILTERED = Answer(
    400,
    {
        "error": {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content policy.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True, "severity": "high"}},
            },
        }
    },
)


@pytest.mark.parametrize(
    ("provider", "refusal", "reason"),
    [
        (AZURE, FILTERED, "content_filter"),
        (AZURE, completion("", "content_filter"), "content_filter"),
        (ANTHROPIC, anthropic_server.message("", "refusal"), "refusal"),
        (ANTHROPIC, anthropic_server.message("I would rather not.", "refusal"), "refusal"),
    ],
    ids=["azure-prompt", "azure-reply", "anthropic-empty", "anthropic-words"],
)
def test_a_refusal_is_counted_and_asked_once_more(
    provider: Provider, refusal: Answer, reason: str, tiny_student: Path, tmp_path: Path
) -> None:
    with provider.answering(refusal, provider.says(FIRST, False), refusal) as server:
        config = provider.config(tiny_student, server)
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert [step.num_requests for step in result.training.steps] == [0, 2, 2]
    assert [step.accepted for step in result.training.steps] == [0, 2, 0]
    assert result.summary.samples.refused == 3
    assert [row[0] for row in logged(tmp_path / "run", "finish_reason")] == [
        reason,
        provider.reasons[0],
        reason,
        reason,
    ]


@pytest.mark.parametrize(
    ("provider", "passing", "wait"),
    [
        (AZURE, replace(failure(429, "Rate limit is exceeded"), headers={"Retry-After": "7"}), 7),
        (ANTHROPIC, anthropic_server.error(429, "rate_limit_error", "too many tokens", **{"retry-after": "7"}), 7),
        (ANTHROPIC, anthropic_server.error(529, "overloaded_error", "Overloaded"), None),
        (ANTHROPIC, anthropic_server.error(500, "api_error", "Internal server error"), None),
        (OLLAMA, ollama_server.error(503, "server busy, please try again"), None),
        (OLLAMA, ollama_server.broken_off(FIRST[:30], "an error was encountered while running the model"), None),
    ],
    ids=["azure-429", "anthropic-429", "anthropic-529", "anthropic-500", "ollama-503", "ollama-midway"],
)
def test_what_passes_is_waited_for(
    provider: Provider, passing: Answer, wait: float | None, tiny_student: Path, slept: list[float]
) -> None:
    with provider.answering(passing, provider.says(FIRST, False)) as server:
        config = provider.config(tiny_student, server, **{"pgkd.num_kd_steps": 1})
        result = distill(TRAIN, VALIDATION, config=config)
    assert len(provider.requests(server)) == 2  # one layer of retries
    assert result.training.steps[1].accepted == 2 and result.training.steps[1].num_requests == 1
    assert slept == [wait] if wait else len(slept) == 1 and 1 <= slept[0] <= 3


@pytest.mark.parametrize(
    ("provider", "missing", "message"),
    [
        (ANTHROPIC, "ANTHROPIC_API_KEY", ": set ANTHROPIC_API_KEY$"),
        (AZURE, "AZURE_OPENAI_API_KEY", "set AZURE_OPENAI_API_KEY$"),
        (AZURE, "OPENAI_API_VERSION", "set OPENAI_API_VERSION$"),
    ],
)
def test_a_missing_variable_is_named(
    provider: Provider,
    missing: str,
    message: str,
    tiny_student: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_fit: None,
) -> None:
    monkeypatch.delenv(missing)
    with provider.answering() as server:
        with pytest.raises(TeacherUnavailableError, match=message):
            distill(TRAIN, VALIDATION, config=provider.config(tiny_student, server))
        assert server.requests == []


def test_azures_endpoint_may_come_from_the_environment(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch, no_fit: None
) -> None:
    flags = {"teacher.base_url": None}
    with AZURE.serve(lambda _call, _body: AZURE.absent) as server:
        with pytest.raises(TeacherUnavailableError, match=r"set AZURE_OPENAI_ENDPOINT \(or `teacher.base_url`\)$"):
            distill(TRAIN, VALIDATION, config=AZURE.config(tiny_student, server, **flags))
        assert server.requests == []
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.address)
        with pytest.raises(TeacherUnavailableError, match="no such model"):
            distill(TRAIN, VALIDATION, config=AZURE.config(tiny_student, server, **flags))
        assert len(server.requests) == 1


@ALL
def test_an_unknown_model_is_found_before_the_first_fit(provider: Provider, tiny_student: Path, no_fit: None) -> None:
    flags = {"teacher.spec": "ollama:nobody"} if provider is OLLAMA else {}
    with provider.serve(lambda _call, _body: provider.absent) as server:
        with pytest.raises(TeacherUnavailableError, match=r"no such model .*check the model's name"):
            distill(TRAIN, VALIDATION, config=provider.config(tiny_student, server, **flags))
        assert len(server.requests) == provider.checks


def test_an_ollama_that_does_not_run_is_found_before_the_first_fit(
    tiny_student: Path, slept: list[float], no_fit: None
) -> None:
    server = ollama_server.OllamaServer("http://127.0.0.1:9")
    with pytest.raises(TeacherUnavailableError, match=r"Please check that Ollama is downloaded, running"):
        distill(TRAIN, VALIDATION, config=OLLAMA.config(tiny_student, server))
    assert slept == []


@ALL
def test_a_call_that_was_never_sent_costs_nothing(provider: Provider) -> None:
    settings = TeacherSettings(spec=provider.spec, base_url="http://127.0.0.1:9")
    with pytest.raises(Exception, match=r"(?i)connect") as caught:
        build_teacher(settings, 100).model.invoke("Hello")
    assert classify(caught.value) is Kind.PASSING and not may_be_billed(caught.value)


def test_what_an_account_has_not_paid_for_is_not_tried_again(tiny_student: Path, no_fit: None) -> None:
    broke = anthropic_server.error(400, "invalid_request_error", "Your credit balance is too low to access the API.")
    with anthropic_server.serve(lambda _call, _body: broke) as server:
        with pytest.raises(TeacherUnavailableError, match="quota used up"):
            distill(TRAIN, VALIDATION, config=ANTHROPIC.config(tiny_student, server))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (ANTHROPIC, "prompt is too long: 210000 tokens > 200000 maximum"),
        (ANTHROPIC, "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000"),
        (OLLAMA, '{"error":{"code":400,"message":"request is too long","type":"exceed_context_size_error"}}'),
        (OLLAMA, "the prompt is longer than the context length currently available to the model"),
        (AZURE, "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens"),
    ],
)
def test_a_prompt_beyond_the_context_is_shortened(provider: Provider, message: str, tiny_student: Path) -> None:
    limit = 2700

    def answer(_call: int, body: dict[str, Any]) -> Answer:
        if len(body["messages"][0]["content"]) <= limit:
            return provider.says(FIRST if "Teacher" in str(body) else "ok", False)
        if provider is OLLAMA:
            return ollama_server.error(400, message)
        if provider is ANTHROPIC:
            return anthropic_server.error(400, "invalid_request_error", message)
        return failure(400, message)

    flags = {"pgkd.num_kd_steps": 1, "teacher.prompt": "paper"}
    with provider.serve(answer) as server:
        result = distill(TRAIN, VALIDATION, config=provider.config(tiny_student, server, **flags))
    assert result.training.steps[1].accepted == 2 and len(provider.requests(server)) > 1
    limit = 40
    with (
        provider.serve(answer) as server,
        pytest.raises(TeacherContextError, match="take a model with a larger context"),
    ):
        distill(TRAIN, VALIDATION, config=provider.config(tiny_student, server, **flags))


UNSUPPORTED = (
    "Unsupported value: 'temperature' does not support 0.8 with this model. Only the default (1) is supported."
)


@pytest.mark.parametrize(
    ("provider", "spec", "rejection"),
    [
        (AZURE, AZURE.spec, failure(400, UNSUPPORTED, "unsupported_value")),
        (
            ANTHROPIC,
            ANTHROPIC.spec,
            anthropic_server.error(400, "invalid_request_error", "`temperature` is deprecated for this model."),
        ),
        (ANTHROPIC, "anthropic:claude-sonnet-5-5", None),  # the client itself refuses
    ],
    ids=["azure", "anthropic", "anthropic-client"],
)
def test_a_temperature_that_a_model_rejects_is_left_out_once_and_for_all(
    provider: Provider,
    spec: str,
    rejection: Answer | None,
    tiny_student: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies = [provider.says(text, False) for text in ("ok", FIRST, SECOND)]

    def answer(_call: int, body: dict[str, Any]) -> Answer:
        return rejection if rejection and "temperature" in body else replies.pop(0)

    with provider.serve(answer) as server:
        config = provider.config(tiny_student, server, **{"teacher.spec": spec})
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert ["temperature" in body for body in server.requests] == [True] * bool(rejection) + [False] * 3
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    assert caplog.text.count("takes no temperature; it is left out from now on") == 1
    assert not any("temperature" in json.loads(row[0]) for row in logged(tmp_path / "run", "settings"))
    limits = [body.get("max_tokens", body.get("max_completion_tokens")) for body in server.requests]
    assert limits == [CHECK_REPLY_TOKENS] * (len(limits) - 2) + [500] * 2


def test_a_token_limit_under_two_names_is_reduced_to_one(tiny_student: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As by OpenAI itself where it is named with --base-url, as a gateway is."""
    both = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
    replies = [completion(FIRST), completion(SECOND)]

    def answer(_call: int, body: dict[str, Any]) -> Answer:
        return failure(400, both, "invalid_parameter_combination") if "max_tokens" in body else replies.pop(0)

    with openai_server.serve(answer) as server:
        distill(TRAIN, VALIDATION, config=openai_config(tiny_student, server.base_url))
    assert ["max_tokens" in body for body in server.requests] == [True, False, False]
    assert len({body["max_completion_tokens"] for body in server.requests}) == 1
    assert "takes no max_tokens" in caplog.text


def form_of(body: dict[str, Any]) -> str:
    if body.get("tools"):  # Ollama's client always sends a list
        assert body["tool_choice"] in ("required", {"type": "any"})
        return "tool"
    if "format" in body:
        return "json_object" if body["format"] == "json" else "json_schema"
    return str(body.get("response_format", {"type": "text"})["type"])


def rejects(forms: Sequence[str], reject: Callable[[str], Answer], replies: list[Answer]) -> Any:
    """Answers to requests in other forms; those without any are checks, or the last resort."""
    return lambda _call, body: reject(form_of(body)) if form_of(body) in forms else replies.pop(0)


def openai_rejects(form: str) -> Answer:
    if form == "tool":
        return failure(400, "This model does not support tools", "unsupported_parameter")
    message = f"Invalid parameter: 'response_format' of type '{form}' is not supported with this model."
    return failure(400, message, "invalid_parameter")


def ollama_rejects(form: str) -> Answer:
    if form == "json_schema":
        go = "json: cannot unmarshal object into Go struct field ChatRequest.format of type string"
        return ollama_server.error(400, go)
    return ollama_server.error(400, 'invalid format: "json"; expected "json" or a valid JSON Schema object')


def anthropic_rejects(_form: str) -> Answer:
    message = "Thinking may not be enabled when tool_choice forces tool use."
    return anthropic_server.error(400, "invalid_request_error", message)


@dataclass(frozen=True)
class Ladder:
    """How a provider's answers may be asked for, strictest first, and how its server says that it takes no such."""

    provider: Provider
    rejects: Callable[[str], Answer]
    forms: tuple[str, ...]
    says: Callable[[str, bool], Answer] | None = None


LADDERS = {
    "azure": Ladder(AZURE, openai_rejects, ("json_schema", "json_object", "tool", "text")),
    "openai-compatible": Ladder(
        replace(AZURE, spec="openai:m", url="base_url", checks=0),
        openai_rejects,
        ("json_schema", "json_object", "text"),
    ),
    "anthropic": Ladder(
        ANTHROPIC, anthropic_rejects, ("tool", "text"), lambda text, _cut: anthropic_server.message(text)
    ),
    "ollama": Ladder(OLLAMA, ollama_rejects, ("json_schema", "json_object", "text")),
}
STEPS = [(name, number) for name, ladder in LADDERS.items() for number in range(1, len(ladder.forms))]


@pytest.mark.filterwarnings("ignore:This model does not support OpenAI's structured output feature")
@pytest.mark.parametrize(("name", "rejected"), STEPS)
def test_a_form_of_the_answer_that_is_rejected_gives_way_to_the_next(
    name: str, rejected: int, tiny_student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ladder = LADDERS[name]
    provider, forms = ladder.provider, ladder.forms
    replies = [(ladder.says or provider.says)(text, False) for text in ["ok"] * provider.checks + [FIRST, SECOND]]
    with provider.serve(rejects(forms[:rejected], ladder.rejects, replies)) as server:
        config = provider.config(tiny_student, server)
        result = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run")
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    bodies = provider.requests(server)
    assert [form_of(body) for body in bodies] == [*forms[: rejected + 1], forms[rejected]]
    told = [CONTRACT in body["messages"][-1]["content"] for body in bodies]
    assert told == [form_of(body) in ("json_object", "text") for body in bodies]
    for before, after in pairwise(forms[: rejected + 1]):
        assert caplog.text.count(f"does not take answers as {before}; asking as {after} from now on") == 1
    assert [json.loads(row[0])["level"] for row in logged(tmp_path / "run", "settings")] == [forms[rejected]] * 2


@pytest.mark.filterwarnings("ignore:This model does not support OpenAI's structured output feature")
@pytest.mark.parametrize("name", LADDERS)
def test_a_forced_form_that_is_rejected_is_an_error(name: str, tiny_student: Path) -> None:
    ladder = LADDERS[name]
    provider, form = ladder.provider, ladder.forms[0]
    checks = [provider.says("ok", False)] * provider.checks
    with provider.serve(rejects([form], ladder.rejects, checks)) as server:
        config = provider.config(tiny_student, server, **{"teacher.structured": form})
        with pytest.raises(TeacherUnavailableError, match="request rejected"):
            distill(TRAIN, VALIDATION, config=config)
    assert len(provider.requests(server)) == 1


ECHOES = {
    "azure": (AZURE, failure(401, f"Access denied due to invalid subscription key {AZURE_KEY}.", "401")),
    "anthropic": (ANTHROPIC, anthropic_server.error(401, "authentication_error", f"invalid {anthropic_server.KEY}")),
    "ollama": (OLLAMA, ollama_server.error(401, f"unauthorized: Bearer {OLLAMA_KEY}")),
    "azure-url": (AZURE, failure(400, f"bad request\nheaders: api-key={AZURE_KEY}", "bad")),
}


@pytest.mark.parametrize("name", ECHOES)
def test_a_key_that_a_server_echoes_is_not_told_on(
    name: str, tiny_student: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider, echo = ECHOES[name]
    caplog.set_level("INFO", logger="pgkd_agent")
    with provider.answering(provider.says(FIRST, False), echo) as server:
        config = provider.config(tiny_student, server)
        with pytest.raises(TeacherUnavailableError, match=r"credentials missing|request rejected") as caught:
            distill(TRAIN, VALIDATION, TEST, config=config, out=tmp_path / "run")
    assert "planted-secret" not in str(caught.value)
    assert "planted-secret" not in caplog.text
    assert_holds_no_secret(tmp_path / "run")


@pytest.mark.parametrize("provider", [ANTHROPIC, OLLAMA], ids=["anthropic", "ollama"])
def test_a_wrong_key_is_refused_before_the_first_fit(
    provider: Provider, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, no_fit: None
) -> None:
    (name,) = provider.variables
    monkeypatch.setenv(name, "a-wrong-planted-secret")
    with provider.answering() as server:
        with pytest.raises(TeacherUnavailableError, match=rf"credentials missing or refused .*\[{name}\]") as caught:
            distill(TRAIN, VALIDATION, config=provider.config(tiny_student, server))
        assert server.requests == [] and "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "provider", "extra"),
    [("langchain_anthropic", ANTHROPIC, "anthropic"), ("langchain_ollama", OLLAMA, "ollama")],
)
def test_a_package_that_is_not_there_is_named_with_its_extra(
    module: str, provider: Provider, extra: str, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, no_fit: None
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = tiny_config(tiny_student, **{"teacher.spec": provider.spec})
    with pytest.raises(ConfigError, match=rf"needs {module} .*run `pip install 'pgkd-agent\[{extra}\]'`"):
        distill(TRAIN, VALIDATION, config=config)
