"""The web application: its pages, and the one request that writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from pgkd_agent.answering.serving.limits import Guard
from pgkd_agent.errors import PGKDError
from pgkd_agent.workbench.pages import Workbench
from pgkd_agent.workbench.protection import OwnPagesOnly
from pgkd_agent.workbench.reviewing import Decision

MOST_BYTES = 100_000
"""Of a request."""
ADVICE = "from another machine, forward a port with ssh -L"
ASSETS = {
    "/page.css": ("pgkd_agent.runs.report", "templates/page.css", "text/css"),
    "/page.js": ("pgkd_agent.runs.report", "templates/page.js", "text/javascript"),
    "/workbench.css": ("pgkd_agent.workbench", "assets/workbench.css", "text/css"),
    "/workbench.js": ("pgkd_agent.workbench", "assets/workbench.js", "text/javascript"),
}
"""Package, file and kind by address."""


def create_app(folder: Path, hosts: Collection[str]) -> FastAPI:
    """
    Args:
        folder: Of run directories, or one of them.
        hosts: Names that requests may give to the server, see `Guard`.
    """
    app = FastAPI(title="pgkd_agent workbench", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OwnPagesOnly)
    app.add_middleware(Guard, key=None, body_bytes=MOST_BYTES, hosts=hosts, advice=ADVICE)  # the outer one
    workbench = Workbench(folder)
    pages: dict[str, Callable[..., str]] = {
        "/": workbench.index,
        "/overview": workbench.overview,
        "/samples": workbench.samples,
        "/mistakes": workbench.mistakes,
        "/confusion": workbench.confusion,
        "/calls": workbench.calls,
        "/call": workbench.call,
        "/compare": workbench.compare,
    }
    for path, page in pages.items():
        app.get(path, response_class=HTMLResponse, response_model=None)(page)
    _add_review(app, workbench)
    _add_assets(app)
    _add_errors(app, workbench)
    return app


def _add_review(app: FastAPI, workbench: Workbench) -> None:
    writing = threading.Lock()  # one request at a time; other processes are held off by a file

    @app.post("/review")
    def review(run: str, decision: Decision) -> dict[str, Any]:
        with writing:
            return workbench.review(run, decision)


def _add_assets(app: FastAPI) -> None:
    def serve(path: str, content: str, kind: str) -> None:
        @app.get(path)
        def asset() -> Response:
            return Response(content, media_type=kind)

    for path, (package, name, kind) in ASSETS.items():
        serve(path, resources.files(package).joinpath(*name.split("/")).read_text(encoding="utf-8"), kind)


def _add_errors(app: FastAPI, workbench: Workbench) -> None:
    """Errors in a sentence: a page, and JSON for what a script sent."""

    def said(request: Request, status: int, sentence: str) -> Response:
        if request.method == "POST":
            return JSONResponse({"detail": sentence}, status)
        return HTMLResponse(workbench.error(sentence, request.query_params.get("run", "")), status)

    @app.exception_handler(PGKDError)
    def of_a_run(request: Request, error: PGKDError) -> Response:
        return said(request, 422, str(error))

    @app.exception_handler(RequestValidationError)
    def of_a_request(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return said(request, 422, f"{'.'.join(map(str, first['loc'][1:])) or 'the request'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    def of_an_address(request: Request, error: HTTPException) -> Response:
        return said(request, error.status_code, f"{request.url.path}: {error.detail}")
