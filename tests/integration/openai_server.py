"""A loopback server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import Answer, Request, serve_json


@dataclass
class OpenAIServer:
    """`requests` holds the bodies and `keys` the Authorization headers of all chat calls."""

    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


def completion(content: str, finish_reason: str = "stop") -> Answer:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    return Answer(
        200,
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage},
    )


def failure(status: int, message: str, code: str | None = None) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "error", "code": code, "param": None}})


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[OpenAIServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0 and its body."""
    server = OpenAIServer()

    def respond(request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, {"object": "list", "data": []})
        body = json.loads(request.body)
        server.requests.append(body)
        server.keys.append(request.headers.get("Authorization"))
        return answer(len(server.requests) - 1, body)

    with serve_json(respond) as address:
        server.base_url = f"{address}/v1"
        yield server
