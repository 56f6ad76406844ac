"""A loopback server that speaks Anthropic's Messages protocol and checks the key of every request.

Clients before version 1 send it as `x-api-key`, later ones as a bearer's token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.batches import Batches, FakeJob, jsonl
from tests.integration.loopback import Answer, Request, serve_json

KEY = "sk-ant-planted-secret"


@dataclass
class AnthropicServer:
    """`requests` holds the bodies of all direct calls with the right key; `batches` the jobs."""

    endpoint: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    batches: Batches = field(default_factory=lambda: Batches(lambda body: error(500, "api_error", "no jobs here")))


def message(text: str, stop_reason: str = "end_turn") -> Answer:
    return _message([{"type": "text", "text": text}] if text else [], stop_reason)


def tool_use(name: str, arguments: dict[str, Any], stop_reason: str = "tool_use") -> Answer:
    return _message([{"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": arguments}], stop_reason)


def _message(content: list[dict[str, Any]], stop_reason: str) -> Answer:
    return Answer(
        200,
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": 80, "output_tokens": 40},
        },
    )


def error(status: int, kind: str, text: str, **headers: str) -> Answer:
    return Answer(status, {"type": "error", "error": {"type": kind, "message": text}}, headers)


def batch_answer(server: AnthropicServer, request: Request) -> Answer:
    """Of the calls about batch jobs."""
    batches, path = server.batches, request.path.partition("?")[0].removeprefix("/v1/messages/batches").strip("/")
    if request.method == "POST":
        lines = {line["custom_id"]: line["params"] for line in json.loads(request.body)["requests"]}
        refused = batches.creates.pop(0) if batches.creates else None
        if refused and refused.status != 504:  # a gateway gave up waiting, and the job was made
            return refused
        job = batches.make("", lines)
        return refused or Answer(200, _job(server, job))
    if not path:
        newest = [_job(server, job) for job in reversed(batches.jobs)]
        return Answer(200, {"data": newest, "has_more": False, "first_id": None, "last_id": None})
    if batches.failures:
        return batches.failures.pop(0)
    found = batches.named(path.removesuffix("/results"))
    if found is None:
        return error(404, "not_found_error", "no such batch")
    if not path.endswith("/results"):
        return Answer(200, _job(server, batches.look(found)))
    return jsonl([{"custom_id": line, "result": _result(found, answer)} for line, answer in batches.results(found)])


def _result(job: FakeJob, answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"type": "canceled" if job.status == "cancelled" else "expired"}
    if answer.status == 200:
        return {"type": "succeeded", "message": answer.content}
    return {"type": "errored", "error": answer.content}


def _job(server: AnthropicServer, job: FakeJob) -> dict[str, Any]:
    is_over, made = job.status != "in_progress", datetime.fromtimestamp(job.made, UTC)
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    left = len(job.lines) - len(job.answers)
    counts["succeeded"] = sum(answer.status == 200 for answer in job.answers.values())
    counts["errored"] = len(job.answers) - counts["succeeded"]
    counts[{"in_progress": "processing", "cancelled": "canceled"}.get(job.status, "expired")] = left
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": "ended" if is_over else "in_progress",
        "request_counts": counts,
        "created_at": made.isoformat(),
        "expires_at": (made + timedelta(days=1)).isoformat(),
        "results_url": f"{server.endpoint}/v1/messages/batches/{job.id}/results" if is_over else None,
    }


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[AnthropicServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0, -1 in jobs, and its body."""
    server = AnthropicServer()
    server.batches.answer = lambda body: answer(-1, body)

    def respond(request: Request) -> Answer:
        key = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not request.path.startswith("/v1/messages"):
            return error(404, "not_found_error", f"Not found: {request.path}")
        if not request.headers.get("anthropic-version"):
            return error(400, "invalid_request_error", "anthropic-version: header is required")
        if key != KEY:
            return error(401, "authentication_error", f"invalid x-api-key {key}")
        if request.path.startswith("/v1/messages/batches"):
            return batch_answer(server, request)
        server.requests.append(json.loads(request.body))
        return answer(len(server.requests) - 1, server.requests[-1])

    with serve_json(respond) as address:
        server.endpoint = address
        yield server
