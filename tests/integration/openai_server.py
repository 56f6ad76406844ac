"""A loopback server that speaks OpenAI's chat protocol, under its paths and those of Azure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import Answer, Request, serve_json


@dataclass
class OpenAIServer:
    """Of all chat calls: their bodies, the headers with the key (Azure's is `api-key`), and their paths.

    Attributes:
        address: Without `/v1`; the endpoint of an Azure resource.
    """

    base_url: str = ""
    address: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


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


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[OpenAIServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0 and its body."""
    server = OpenAIServer()

    def respond(request: Request) -> Answer:
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
