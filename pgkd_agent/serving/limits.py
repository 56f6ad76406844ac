"""What a request may hold, and who may send one."""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/", "/page.css", "/page.js", "/health", "/openapi.json")
"""For which no key is needed; they tell nothing of the model or its use."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    Attributes:
        texts: Of a request.
        chars: Of a text.
        body_bytes: Of a request.
        waiting: Texts of all requests that are not yet being classified.
    """

    texts: int = 256
    chars: int = 20_000
    body_bytes: int = 2_000_000
    waiting: int = 4096


class _TooLargeError(Exception):
    pass


class Guard:
    """Answers 401 without the key and 413 to a body beyond the limit, before anything of it is read or kept.

    Args:
        key: None asks for none.
    """

    def __init__(self, app: ASGIApp, key: str | None, body_bytes: int) -> None:
        self._app = app
        self._key = key
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._key is not None and scope["path"] not in OPEN_PATHS and not self._has_key(headers):
            await _refuse(
                send, 401, "a key is needed: send it as Authorization: Bearer KEY", "www-authenticate", "Bearer"
            )
            return
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._body_bytes:
            await self._too_large(send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._body_bytes:
                raise _TooLargeError
            return message

        async def unless_too_large(message: Message) -> None:
            if read <= self._body_bytes:  # else it is what the app made of our error
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, counted, unless_too_large)
        if read > self._body_bytes:
            await self._too_large(send)

    def _has_key(self, headers: dict[str, str]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), (self._key or "").encode())

    async def _too_large(self, send: Send) -> None:
        await _refuse(send, 413, f"the request has more than {self._body_bytes:,} bytes; send fewer texts at a time")


async def _refuse(send: Send, status: int, detail: str, header: str = "", value: str = "") -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if header:
        headers.append((header.encode(), value.encode()))
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
