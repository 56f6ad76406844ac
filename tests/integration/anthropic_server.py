"""A loopback server that speaks Anthropic's Messages protocol and checks the key of every request.

Clients before version 1 send it as `x-api-key`, later ones as a bearer's token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import Answer, Request, serve_json

KEY = "sk-ant-planted-secret"


@dataclass
class AnthropicServer:
    """`requests` holds the bodies of all calls with the right key."""

    endpoint: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)


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


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[AnthropicServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0 and its body."""
    server = AnthropicServer()

    def respond(request: Request) -> Answer:
        key = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path != "/v1/messages":
            return error(404, "not_found_error", f"Not found: {request.path}")
        if not request.headers.get("anthropic-version"):
            return error(400, "invalid_request_error", "anthropic-version: header is required")
        if key != KEY:
            return error(401, "authentication_error", f"invalid x-api-key {key}")
        server.requests.append(json.loads(request.body))
        return answer(len(server.requests) - 1, server.requests[-1])

    with serve_json(respond) as address:
        server.endpoint = address
        yield server
