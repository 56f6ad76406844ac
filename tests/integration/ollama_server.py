"""A loopback server that speaks Ollama's protocol: chat as a stream of JSON lines, and what is known of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import Answer, Request, serve_json

MODEL = "qwen3:8b"


@dataclass
class OllamaServer:
    """`requests` holds the bodies of all chats, `shown` the models that were asked about."""

    endpoint: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


def chat(text: str, done_reason: str = "stop") -> Answer:
    """The text in two pieces, then the line with the counts."""
    half = len(text) // 2
    lines = [_line(text[:half]), _line(text[half:])]
    return _stream([*lines, {**_line(""), **_done(done_reason)}])


def tool_call(name: str, arguments: dict[str, Any]) -> Answer:
    called = _line("")
    called["message"]["tool_calls"] = [{"function": {"name": name, "arguments": arguments}}]
    return _stream([called, {**_line(""), **_done("stop")}])


def broken_off(text: str, message: str) -> Answer:
    """An error in the middle of the reply; the status has been sent by then."""
    return _stream([_line(text), {"error": message}])


def error(status: int, message: str) -> Answer:
    return Answer(status, {"error": message})


def _line(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": MODEL, "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False}


def _done(reason: str) -> dict[str, Any]:
    return {"done": True, "done_reason": reason, "prompt_eval_count": 70, "eval_count": 50, "total_duration": 1}


def _stream(lines: list[dict[str, Any]]) -> Answer:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return Answer(200, content, {"Content-Type": "application/x-ndjson"})


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer], key: str | None = None) -> Iterator[OllamaServer]:
    """Serve while the block lasts; `answer` gets the number of the chat from 0 and its body.

    Args:
        key: What a request has to bring, as to Ollama's cloud.
    """
    server = OllamaServer()

    def respond(request: Request) -> Answer:
        body = json.loads(request.body)
        given = request.headers.get("Authorization")
        if key and given != f"Bearer {key}":
            return error(401, f"unauthorized: {given}")
        if body["model"] != MODEL:
            return error(404, f"model '{body['model']}' not found")
        if request.path == "/api/show":
            server.shown.append(body["model"])
            return Answer(200, {"details": {"family": "qwen3"}, "model_info": {}, "capabilities": ["completion"]})
        if request.path != "/api/chat":
            return Answer(404, b"404 page not found", {"Content-Type": "text/plain"})
        server.requests.append(body)
        return answer(len(server.requests) - 1, body)

    with serve_json(respond) as address:
        server.endpoint = address
        yield server
