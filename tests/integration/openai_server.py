"""A loopback server that speaks OpenAI's chat protocol, under its paths and those of Azure, and has batch jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.batches import Batches, FakeJob, jsonl
from tests.integration.loopback import Answer, Request, serve_json


@dataclass
class OpenAIServer:
    """Of all chat calls: their bodies, the headers with the key (Azure's is `api-key`), and their paths.

    Attributes:
        address: Without `/v1`; the endpoint of an Azure resource.
        batches: Its jobs, whose requests are not among those of direct calls.
        files: Bodies of uploads, with their boundaries.
    """

    base_url: str = ""
    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    batches: Batches = field(default_factory=lambda: Batches(lambda body: failure(500, "no jobs here")))
    files: list[bytes] = field(default_factory=list)


def completion(content: str, finish_reason: str = "stop") -> Answer:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return Answer(
        200,
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage},
    )


def tool_call(name: str, arguments: str, finish_reason: str = "tool_calls") -> Answer:
    """
    Args:
        arguments: JSON; no whole one where the reply was cut off.
    """
    answer = completion("", finish_reason)
    assert isinstance(answer.content, dict)
    call = {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": arguments}}
    answer.content["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    return answer


def failure(status: int, message: str, code: str | None = None) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "error", "code": code, "param": None}})


def batch_answer(server: OpenAIServer, request: Request) -> Answer | None:
    """Of the calls about batch jobs and their files; None for another call."""
    batches, path = server.batches, request.path.partition("?")[0].removeprefix("/v1")
    if path == "/files":
        server.files.append(request.body)
        return Answer(200, {"id": f"file-{len(server.files) - 1}", "object": "file", "purpose": "batch"})
    if path == "/batches" and request.method == "POST":
        refused = batches.creates.pop(0) if batches.creates else None
        if refused and refused.status != 504:  # a gateway gave up waiting, and the job was made
            return refused
        job = _made(server, json.loads(request.body))
        return refused or Answer(200, _job(job))
    if path == "/batches":
        newest = [_job(job) for job in reversed(batches.jobs)]
        return Answer(200, {"object": "list", "data": newest, "has_more": False})
    if path.startswith("/batches/"):
        if batches.failures:
            return batches.failures.pop(0)
        found = batches.named(path.removeprefix("/batches/"))
        return Answer(200, _job(batches.look(found))) if found else failure(404, "No such batch")
    if path.startswith("/files/"):
        kind, _, number = path.removeprefix("/files/").removesuffix("/content").partition("-")
        found = batches.named(number)
        assert found
        lines = [_line(line, answer) for line, answer in batches.results(found)]
        return jsonl(
            [line for line in lines if (kind == "output") == ((line["response"] or {}).get("status_code") == 200)]
        )
    return None


def _made(server: OpenAIServer, body: dict[str, Any]) -> FakeJob:
    assert (body["endpoint"], body["completion_window"]) == ("/v1/chat/completions", "24h")
    content = server.files[int(body["input_file_id"].removeprefix("file-"))]
    lines = [json.loads(line) for line in content.split(b"\n") if line.startswith(b"{")]
    assert all((line["method"], line["url"]) == ("POST", body["endpoint"]) for line in lines)
    return server.batches.make(body["metadata"]["pgkd_job"], {line["custom_id"]: line["body"] for line in lines})


def _job(job: FakeJob) -> dict[str, Any]:
    is_over, refused = job.status != "in_progress", job.status == "failed"
    counts = {"total": len(job.lines), "completed": len(job.answers), "failed": 0}
    error = {"code": job.name and "token_limit_exceeded", "message": "Enqueued token limit reached for m"}
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "created_at": int(job.made),
        "input_file_id": "file-0",
        "status": job.status,
        "metadata": {"pgkd_job": job.name},
        "request_counts": counts,
        "output_file_id": f"output-{job.id}" if is_over and not refused else None,
        "error_file_id": f"error-{job.id}" if is_over and not refused else None,
        "errors": {"object": "list", "data": [error]} if refused else None,
    }


def _line(line: str, answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"id": "1", "custom_id": line, "response": None, "error": {"code": "batch_expired", "message": "late"}}
    response = {"status_code": answer.status, "request_id": "r", "body": answer.content}
    return {"id": "1", "custom_id": line, "response": response, "error": None}


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[OpenAIServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0, -1 for those in jobs, and its body."""
    server = OpenAIServer()
    server.batches.answer = lambda body: answer(-1, body)

    def respond(request: Request) -> Answer:
        if (about_jobs := batch_answer(server, request)) is not None:
            return about_jobs
        if request.method == "GET":
            return Answer(200, {"object": "list", "data": []})
        body = json.loads(request.body)
        server.requests.append(body)
        server.keys.append(request.headers.get("api-key") or request.headers.get("Authorization"))
        server.paths.append(request.path)
        return answer(len(server.requests) - 1, body)

    with serve_json(respond) as address:
        server.address, server.base_url = address, f"{address}/v1"
        yield server
