"""What goes wrong between a teacher and us, over HTTP, with the real clients of two protocols: the whole table.

A row says what the server does in turn, and then: how many requests are sent, how many samples are read and
accepted, and what the user sees, as an error or in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.data import prepare_task
from pgkd_agent.errors import TeacherError, TeacherOutputError, TeacherUnavailableError
from pgkd_agent.loop.algorithm import build_request
from pgkd_agent.loop.evidence import score_rows
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import History
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.calling import Caller
from pgkd_agent.teacher.calls.failures import Kind
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import open_teacher, teacher_prompt
from pgkd_agent.teacher.preview import stand_in
from pgkd_agent.types import TeacherReply, TeacherRequest
from tests.integration import bedrock_server, openai_server
from tests.integration.conftest import FILLER, TOPICS, sentences
from tests.integration.loopback import Answer

ASKED = 32
TRAIN, VALIDATION = sentences(12, 0), sentences(5, 1)
TASK = prepare_task(TRAIN, VALIDATION, ())


SAMPLES = [
    {
        "text": " ".join(FILLER[(number + step * (1 + number % 5)) % len(FILLER)] for step in range(1, 9))
        + f" №{number}",
        "label": list(TOPICS)[number % len(TOPICS)],
    }
    for number in range(ASKED)
]
GOOD = json.dumps({"samples": SAMPLES}, ensure_ascii=False)
MORE = [{"text": f"{sample['text']} once more", "label": sample["label"]} for sample in SAMPLES[:16]]
LINES = "\n".join(json.dumps(sample, ensure_ascii=False) for sample in SAMPLES)
HALVES = [json.dumps(SAMPLES[:16], ensure_ascii=False), json.dumps(SAMPLES[16:], ensure_ascii=False)]
CUT = GOOD[: GOOD.index(SAMPLES[20]["text"]) + 5]
COPIES = json.dumps({"samples": [{"text": row.text, "label": row.label} for row in TRAIN[:ASKED]]})
ELSEWHERE = json.dumps({"samples": [{**sample, "label": "space travel"} for sample in SAMPLES]})
HTML = Answer(200, b"<html><body>Welcome to our proxy</body></html>", {"Content-Type": "text/html"})
DROPPED = Answer(200, {}, drops=True)


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        openai, bedrock: Answers in turn; the last one again and again. A text is a reply of the model.
        sees: Part of the error where `error` is set, else of the log; empty where there is nothing to see.
    """

    name: str
    openai: list[Answer | str]
    bedrock: list[Answer | str]
    requests: int
    sees: str = ""
    read: int = 0
    accepted: int = 0
    refused: int = 0
    error: type[TeacherError] | None = None


def of_openai(status: int, message: str, code: str | None = None, **headers: str) -> Answer:
    return replace(openai_server.failure(status, message, code), headers=headers)


def of_bedrock(status: int, code: str, message: str, **headers: str) -> Answer:
    answer = bedrock_server.error(status, code, message)
    return replace(answer, headers={**answer.headers, **headers})


def refusing() -> Answer:
    answer = openai_server.completion("")
    assert isinstance(answer.content, dict)
    answer.content["choices"][0]["message"] |= {"content": None, "refusal": "I cannot help with that."}
    return answer


def message_of(**fields: Any) -> Answer:
    answer = openai_server.completion("")
    assert isinstance(answer.content, dict)
    answer.content["choices"][0]["message"] |= fields
    return answer


def instead(answer: Answer, **parts: Any) -> Answer:
    """The answer with other parts; None leaves one out."""
    assert isinstance(answer.content, dict)
    content = {name: part for name, part in {**answer.content, **parts}.items() if part is not None}
    return replace(answer, content=content)


def choice_of(**parts: Any) -> Answer:
    answer = openai_server.completion("")
    assert isinstance(answer.content, dict)
    return instead(answer, choices=[{**answer.content["choices"][0], **parts}])


def blocks_of(*blocks: Any) -> Answer:
    return instead(bedrock_server.converse(""), output={"message": {"role": "assistant", "content": [*blocks]}})


def empty(name: str, openai: Answer, bedrock: Answer, sees: str = "") -> Fault:
    """An answer without a text: counted, said, and asked again."""
    return mended(name, openai, bedrock, f"no sample to read ({sees}")


def failing(name: str, sees: str, openai: Answer, bedrock: Answer, requests: int = 1) -> Fault:
    """An error that ends the run."""
    return Fault(name, [openai], [bedrock], requests, sees, error=TeacherUnavailableError)


def mended(name: str, openai: Answer, bedrock: Answer, sees: str, **outcome: Any) -> Fault:
    """An error that the next request does away with."""
    return Fault(name, [openai, GOOD], [bedrock, GOOD], 2, sees, ASKED, ASKED, **outcome)


def said(name: str, first: str, requests: int = 1, sees: str = "", read: int = ASKED, accepted: int = ASKED) -> Fault:
    """A reply of the model; where it is not enough, a good one follows."""
    return Fault(name, [first, GOOD], [first, GOOD], requests, sees, read, accepted)


FAULTS = [
    failing(
        "401",
        Kind.AUTH,
        of_openai(401, "Incorrect API key provided", "invalid_api_key"),
        of_bedrock(403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    ),
    failing(
        "403",
        Kind.AUTH,
        of_openai(403, "Project does not have access to model `m`"),
        of_bedrock(403, "AccessDeniedException", "You don't have access to the model with the specified model ID."),
    ),
    failing(
        "404 model",
        Kind.NO_MODEL,
        of_openai(404, "The model `m` does not exist", "model_not_found"),
        of_bedrock(400, "ValidationException", "The provided model identifier is invalid."),
    ),
    mended(
        "429 with Retry-After",
        of_openai(429, "slow down", **{"Retry-After": "7"}),
        of_bedrock(429, "ThrottlingException", "Too many requests", **{"Retry-After": "7"}),
        "trying again in 7 s",
    ),
    mended(
        "429 without Retry-After",
        of_openai(429, "slow down"),
        of_bedrock(429, "ThrottlingException", "Too many requests"),
        "trying again in ",
    ),
    failing(
        "429 without end",
        "rate limit",
        of_openai(429, "slow down"),
        of_bedrock(429, "ThrottlingException", "Too many requests"),
        requests=3,
    ),
    failing(
        "429 with a wait of hours",
        "rate limit",
        of_openai(429, "slow down", **{"Retry-After": "7200"}),
        of_bedrock(429, "ThrottlingException", "Too many requests", **{"Retry-After": "7200"}),
    ),
    failing(
        "quota used up",
        Kind.QUOTA,
        of_openai(429, "You exceeded your current quota", "insufficient_quota"),
        of_bedrock(400, "ServiceQuotaExceededException", "Too many tokens per day"),
    ),
    mended(
        "500",
        of_openai(500, "The server had an error"),
        of_bedrock(500, "InternalServerException", "An internal server error occurred"),
        "trying again in ",
    ),
    mended(
        "503",
        of_openai(503, "overloaded"),
        of_bedrock(503, "ServiceUnavailableException", "Service unavailable"),
        "trying again in ",
    ),
    failing("HTML instead of JSON", "not an answer of the provider's API", HTML, HTML),
    mended("dropped connection", DROPPED, DROPPED, "trying again in "),
    mended("slow", Answer(200, {}, seconds=2.5), Answer(200, {}, seconds=2.5), "trying again in "),
    mended(
        "prompt beyond the context",
        of_openai(400, "This model's maximum context length is 4 tokens", "context_length_exceeded"),
        of_bedrock(400, "ValidationException", "Input is too long for requested model."),
        "prompt too long for the teacher, left out 8 of 16 rows of few_shot",
    ),
    mended(
        "refusal, once",
        refusing(),
        bedrock_server.converse("", "guardrail_intervened"),
        "declined to answer",
        refused=1,
    ),
    Fault(
        "refusal, always",
        [refusing()],
        [bedrock_server.converse("I cannot.", "guardrail_intervened")],
        2,
        "no readable sample in 2 replies (2 refused for their content)",
        refused=2,
        error=TeacherOutputError,
    ),
    mended(
        "content filter on the reply",
        openai_server.completion("", "content_filter"),
        bedrock_server.converse("", "content_filtered"),
        "declined to answer",
        refused=1,
    ),
    mended(
        "content filter on the prompt",
        of_openai(400, "The response was filtered", "content_filter"),
        bedrock_server.converse("", "content_filtered"),
        "declined to answer",
        refused=1,
    ),
    Fault(
        "cut off",
        [openai_server.completion(CUT, "length"), GOOD],
        [bedrock_server.converse(CUT, "max_tokens"), GOOD],
        2,
        "12 samples are missing, asking for them",
        20 + ASKED,
        ASKED,
    ),
    said("a few short of what was asked", json.dumps({"samples": SAMPLES[:28]}), read=28, accepted=28),
    said("half of what was asked", json.dumps(SAMPLES[:16]), 2, "16 samples are missing", 16 + ASKED, ASKED),
    said("empty", "", 2, "no sample to read (there is no text, finish reason "),
    empty("no choices", instead(openai_server.completion(""), choices=[]), blocks_of()),
    empty("choices null", Answer(200, b'{"id": "1", "choices": null}'), blocks_of({})),
    empty("a choice of nothing", instead(openai_server.completion(""), choices=[None]), blocks_of({"text": None})),
    empty("no message", choice_of(message=None), instead(bedrock_server.converse(""), output={})),
    empty("no output", choice_of(message={}), instead(bedrock_server.converse(""), output=None)),
    empty("null", Answer(200, b"null"), Answer(200, b"null")),
    empty("a list", Answer(200, b"[]"), Answer(200, b"[]")),
    empty("nothing", Answer(200, b""), blocks_of(None)),
    empty(
        "finish reason error",
        choice_of(finish_reason="error", error={"message": "upstream"}),
        bedrock_server.converse("", "error"),
    ),
    empty(
        "all in a field of reasoning",
        message_of(content=None, reasoning_content=GOOD),
        blocks_of({"reasoningContent": {"reasoningText": {"text": GOOD}}}),
        "all that came is in the field 'reasoning_content', finish reason ",
    ),
    Fault(
        "all of the length for reasoning",
        [openai_server.completion("", "length")],
        [bedrock_server.converse("", "max_tokens")],
        3,
        "0 tokens, was reached); try another model, or have it think less, or give it room with a larger teacher.max_",
        error=TeacherOutputError,
    ),
    Fault(
        "text in parts",
        [message_of(content=[{"type": "text", "text": HALVES[0]}, {"text": HALVES[1]}, None])],
        [blocks_of({"text": HALVES[0]}, {"text": HALVES[1]})],
        1,
        read=ASKED,
        accepted=ASKED,
    ),
    Fault(
        "no usage",
        [instead(openai_server.completion(GOOD), usage=None)],
        [instead(bedrock_server.converse(GOOD), usage=None)],
        1,
        read=ASKED,
        accepted=ASKED,
    ),
    said("a draft before a closing tag", f'Draft: {{"text": "x", "label": "fruit"}}</think>{GOOD}'),
    said("samples as text", json.dumps({"samples": json.dumps(SAMPLES)})),
    said("one key more", json.dumps({"title": "Samples", "samples": SAMPLES})),
    said("more than was asked", json.dumps(SAMPLES + MORE), read=48, accepted=48),
    said("decorated labels", json.dumps([{**one, "label": f"**{one['label']}**."} for one in SAMPLES])),
    said("another schema", '{"rows": [{"id": 1, "value": "x"}]}', 2, "no sample to read"),
    said("no JSON", "Sure! Which classes do you mean?", 2, "no sample to read"),
    said("prose around it", f"Sure, here are {{some}} samples:\n{GOOD}\nGood luck with [training]!"),
    said("fences", f"```json\n{GOOD}\n```"),
    said("thoughts before it", f'<think>Maybe {{"text": "x", "label": "fruit"}}?</think>{GOOD}'),
    said("JSON lines", LINES),
    said("two lists", f"First:\n{HALVES[0]}\nAnd then:\n{HALVES[1]}"),
    said("wrong labels only", ELSEWHERE, 2, "no label of the taxonomy", 2 * ASKED),
    said("known texts only", COPIES, accepted=0),
]


@dataclass
class Protocol:
    """A running server of one protocol, and what it was asked."""

    spec: str
    url: str
    requests: list[dict[str, Any]]


@contextmanager
def openai(answers: list[Answer | str]) -> Iterator[Protocol]:
    replies = [openai_server.completion(answer) if isinstance(answer, str) else answer for answer in answers]
    with openai_server.serve(lambda call, _body: replies[min(call, len(replies) - 1)]) as server:
        yield Protocol("openai:m", server.base_url, server.requests)


@contextmanager
def bedrock(answers: list[Answer | str]) -> Iterator[Protocol]:
    """The first call is the one that finds out whether the teacher answers."""
    replies = [bedrock_server.converse(answer) if isinstance(answer, str) else answer for answer in answers]
    replies = [bedrock_server.converse("ok"), *replies]
    with bedrock_server.serve(lambda call, _body: replies[min(call, len(replies) - 1)]) as server:
        yield Protocol("bedrock_converse:anthropic.claude-3-sonnet-20240229-v1:0", server.endpoint, server.requests)


Serve = Callable[[list[Answer | str]], Any]


def settings(protocol: Protocol, **flags: Any) -> PGKDConfig:
    return build_config(
        flags={
            "teacher.spec": protocol.spec,
            "teacher.base_url": protocol.url,
            "teacher.prompt": "paper",
            "teacher.timeout": 1,
            "guardrails.near_duplicate_ratio": 100,
            **flags,
        }
    )


@contextmanager
def teacher_of(config: PGKDConfig, log: Path | None = None) -> Iterator[Teacher]:
    template = teacher_prompt(config.teacher)
    budget = Budget(config.budget, load_prices())
    screener = Guardrails(config.guardrails, TASK.taxonomy)
    with open_teacher(None, template, TASK, config, screener, budget, log) as opened:
        assert opened.teacher
        opened.check()
        yield opened.teacher


def request_of(config: PGKDConfig, kd_step: int = 1) -> TeacherRequest:
    probabilities = stand_in(TASK.train, TASK.taxonomy, mistakes=True)
    scored = score_rows(TASK.train, probabilities, TASK.taxonomy)
    evaluation = evaluate(stand_in(TASK.validation, TASK.taxonomy, True), TASK.validation, TASK.taxonomy)
    return build_request(TASK, History.of(TASK.train), scored, evaluation, config, kd_step)


def accepted(reply: TeacherReply, config: PGKDConfig) -> int:
    screened = Guardrails(config.guardrails, TASK.taxonomy).screen(reply.samples, History.of(TRAIN), reply.shown_texts)
    written = {(sample["text"], sample["label"]) for sample in (*SAMPLES, *MORE)}
    assert all((item.text, item.label) in written for item in screened.accepted)
    return len(screened.accepted)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(Caller, "sleep", lambda _self, wait: seconds.append(wait))
    caplog.set_level(logging.INFO)
    return seconds


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    bedrock_server.sign_in(monkeypatch)


@pytest.mark.parametrize("serve", [openai, bedrock], ids=["openai", "bedrock"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_what_happens(fault: Fault, serve: Serve, slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with serve(fault.openai if serve is openai else fault.bedrock) as protocol:
        config = settings(protocol)
        with teacher_of(config) as teacher:
            before = len(protocol.requests)
            if fault.error:
                with pytest.raises(fault.error) as caught:
                    teacher.write(request_of(config))
                assert fault.sees in str(caught.value) and protocol.spec in str(caught.value)
            else:
                reply = teacher.write(request_of(config))
                assert (len(reply.samples), accepted(reply, config)) == (fault.read, fault.accepted)
                assert reply.num_refused == fault.refused
                assert fault.sees in caplog.text
                problems = [record for record in caplog.records if record.name.startswith("pgkd_agent.teacher")]
                assert bool(problems) == bool(fault.sees)
        assert len(protocol.requests) - before == fault.requests
    if "Retry-After" in fault.name and not fault.error:
        assert (slept == [7]) == ("with " in fault.name)


@pytest.mark.parametrize("cut", range(len(GOOD) // 20, len(GOOD), len(GOOD) // 20))
def test_of_a_reply_cut_anywhere_every_whole_sample_is_kept(cut: int, slept: list[float]) -> None:
    ends = [GOOD.index("}", GOOD.index(sample["text"])) for sample in SAMPLES]
    whole = sum(end < cut for end in ends)
    with openai([openai_server.completion(GOOD[:cut], "length"), "no more", "no more"]) as protocol:
        config = settings(protocol)
        with teacher_of(config) as teacher:
            reply = teacher.write(request_of(config))
    kept = [(sample.text, sample.label) for sample in reply.samples]
    assert kept == [(sample["text"], sample["label"]) for sample in SAMPLES[:whole]]


@pytest.mark.parametrize("serve", [openai, bedrock], ids=["openai", "bedrock"])
def test_the_teacher_hears_what_was_wrong(serve: Serve, slept: list[float]) -> None:
    with serve([ELSEWHERE, "Pardon?", GOOD]) as protocol:
        config = settings(protocol)
        with teacher_of(config) as teacher:
            teacher.write(request_of(config))
        last = json.dumps(protocol.requests[-1])
    assert "None of these labels is in the list" in last and "space travel" in last
    assert "No sample could be read from that answer" in last and "Pardon?" in last
