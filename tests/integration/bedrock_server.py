"""A loopback server that speaks Bedrock's Converse protocol and checks the signature of every request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.integration.loopback import Answer, Request, serve_json

KEY_ID, SECRET, REGION = "AKIDEXAMPLE", "a-secret-of-the-tests", "us-east-1"


def sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys and the region that the server knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", REGION)


@dataclass
class BedrockServer:
    """`requests` holds the bodies and `models` the model ids of all calls with a right signature."""

    endpoint: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    models: list[str] = field(default_factory=list)


def converse(text: str, stop_reason: str = "end_turn") -> Answer:
    return Answer(
        200,
        {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": stop_reason,
            "usage": {"inputTokens": 90, "outputTokens": 30, "totalTokens": 120},
            "metrics": {"latencyMs": 1},
        },
    )


def tool_use(name: str, arguments: dict[str, Any], stop_reason: str = "tool_use") -> Answer:
    answer = converse("", stop_reason)
    call = {"toolUse": {"toolUseId": f"tooluse_{name}", "name": name, "input": arguments}}
    answer.content["output"]["message"]["content"] = [call]
    return answer


def error(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {"message": message}, {"x-amzn-ErrorType": kind})


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[BedrockServer]:
    """Serve while the block lasts; `answer` gets the number of the call from 0 and its body."""
    server = BedrockServer()

    def respond(request: Request) -> Answer:
        if not _is_signed(request, server.endpoint):
            return error(403, "InvalidSignatureException", "The request signature we calculated does not match")
        _, _, model, action = request.path.split("/")
        if action != "converse":
            return error(404, "ResourceNotFoundException", request.path)
        server.requests.append(json.loads(request.body))
        server.models.append(unquote(model))
        return answer(len(server.requests) - 1, server.requests[-1])

    with serve_json(respond) as address:
        server.endpoint = address
        yield server


def _is_signed(request: Request, endpoint: str) -> bool:
    """Sign the same request with the secret, and compare (AWS Signature Version 4)."""
    given = request.headers.get("Authorization", "")
    if not given.startswith(f"AWS4-HMAC-SHA256 Credential={KEY_ID}/"):
        return False
    signed_names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    headers = {name: request.headers[name] for name in signed_names if name != "host"}
    again = AWSRequest(request.method, endpoint + request.path, headers, request.body)
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(KEY_ID, SECRET), "bedrock", REGION)
    signature = signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again)
    return given.endswith(f"Signature={signature}")
