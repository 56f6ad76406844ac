"""Who may write, and what a browser may do with a page: a review is changed by the workbench's own pages alone."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

READING = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class OwnPagesOnly:
    """Answers 403 to what would write, unless the browser says that a page of this server sent it; adds `HEADERS`.

    A browser names the origin of what a page sends (`Sec-Fetch-Site`, `Origin`), and a page cannot forge either. Where
    neither is there, it is refused as well. Which names this server answers to is up to a `Guard` around this.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] in READING or _is_own(headers):
            await self._app(scope, receive, with_headers)
        else:
            refusal = PlainTextResponse("only a page of this server may change anything", 403)
            await refusal(scope, receive, with_headers)


def _is_own(headers: dict[str, str]) -> bool:
    said = [
        headers[name] == own
        for name, own in (("sec-fetch-site", "same-origin"), ("origin", f"http://{headers.get('host')}"))
        if name in headers
    ]
    return bool(said) and all(said)
