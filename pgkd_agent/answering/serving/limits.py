"""What a request may hold, and who may send one."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgkd_agent.errors import ConfigError
from pgkd_agent.text import shorten

OPEN_PATHS = ("/", "/page.css", "/page.js", "/health", "/openapi.json")
"""For which no key is needed; they tell nothing of the model or its use."""
MOST_READ_BYTES, MOST_READ_SECONDS = 32_000_000, 10
"""Of a body beyond the limit, so that its sender reads the refusal; the connection of a longer one is closed."""


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


def check_key(key: str) -> None:
    """
    Raises:
        ConfigError: No header can hold the key.
    """
    if not (key and key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError("the key has to be printable ASCII without blanks around it: no header can hold another")


class _TooLargeError(Exception):
    pass


class Guard:
    """Answers 401 without the key, 403 to a name of this machine that is none, 415 to a body that is packed, and 413 to
    one beyond the limit.

    Nothing of such a body is kept.

    Args:
        key: That requests bring as `Authorization: Bearer KEY`; None asks for none.
        hosts: Names that requests may give to the server; None allows any. A page of another site whose name was made
            to point at this machine gives another.
        advice: To whoever gives another.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str | None,
        body_bytes: int,
        hosts: Collection[str] | None,
        advice: str = "behind a proxy, start it with a key",
    ) -> None:
        self._app = app
        self._key = key
        self._body_bytes = body_bytes
        self._hosts = hosts
        self._advice = advice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._hosts is not None and _host_of(headers) not in self._hosts:
            detail = f"this server answers as {', '.join(self._hosts)}; {self._advice}"
            await _refuse(send, 403, detail)
            return
        if scope["path"] not in OPEN_PATHS and not self._may_ask(headers):
            detail = "a key is needed: send it as Authorization: Bearer KEY"
            await _refuse(send, 401, detail, (b"www-authenticate", b"Bearer"))
            return
        if (encoding := headers.get("content-encoding", "identity").strip().lower()) not in ("identity", ""):
            await _refuse(send, 415, f"Content-Encoding {shorten(encoding, 40)!r} is not taken; send the body as it is")
            return
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._body_bytes:
            await self._too_large(receive, send, 0, True)
            return
        read, more = 0, True

        async def counted() -> Message:
            nonlocal read, more
            message = await receive()
            read += len(message.get("body", b""))
            more = message.get("more_body", False)
            if read > self._body_bytes:
                raise _TooLargeError
            return message

        async def unless_too_large(message: Message) -> None:
            if read <= self._body_bytes:  # else it is what the app made of our error
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, counted, unless_too_large)
        if read > self._body_bytes:
            await self._too_large(receive, send, read, more)

    def _may_ask(self, headers: dict[str, str]) -> bool:
        if self._key is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key.encode())

    async def _too_large(self, receive: Receive, send: Send, read: int, more: bool) -> None:
        """
        Args:
            more: Whether there is more of the body to read.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(MOST_READ_SECONDS):
                while more and read <= MOST_READ_BYTES:
                    message = await receive()
                    read += len(message.get("body", b""))
                    more = message.get("more_body", False)
        detail = f"the request has more than {self._body_bytes:,} bytes; send fewer texts at a time"
        await _refuse(send, 413, detail, (b"connection", b"close"))


def _host_of(headers: dict[str, str]) -> str:
    """Without port, and without the brackets of an IPv6 address."""
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").lower().rstrip(".")


async def _refuse(send: Send, status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
