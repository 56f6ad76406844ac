"""The HTTP API of a student."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from itertools import islice
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse

from pgkd_agent import version
from pgkd_agent.answering.serving.batching import Batcher, ClassifierError, OverloadedError, StoppedError
from pgkd_agent.answering.serving.limits import Guard, Limits, check_key
from pgkd_agent.answering.serving.messages import (
    ClassifiedText,
    ClassifyRequest,
    ClassifyResponse,
    Health,
    LabelProbability,
    Labels,
)
from pgkd_agent.answering.serving.metrics import Metrics, Timing
from pgkd_agent.student.classifier import Prediction, StudentClassifier

logger = logging.getLogger(__name__)

MAX_BATCH = 64
RETRY_AFTER_SECONDS = 1
CLIENT_HAS_GONE = 499
"""As nginx names it; nobody reads the answer."""
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def create_app(
    classifier: StudentClassifier,
    limits: Limits | None = None,
    *,
    max_batch: int = MAX_BATCH,
    min_confidence: float = 0.0,
    key: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """
    Args:
        limits: None takes the defaults.
        max_batch: Texts that go through the model at a time; 1 leaves each request alone.
        min_confidence: Below it a text gets no label.
        key, hosts: See `Guard`.
    Raises:
        ConfigError: See `check_key`.
    """
    if key is not None:
        check_key(key)
    limits = limits or Limits()
    batcher = Batcher(classifier.classify, max_batch, limits.waiting, lambda texts: metrics.on_batch(texts))
    metrics = Metrics(classifier.labels, lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = FastAPI(
        title="pgkd_agent",
        version=version.VERSION,
        description="A text classifier.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, key=key, body_bytes=limits.body_bytes, hosts=hosts)
    app.add_middleware(Timing, path="/classify", metrics=metrics)  # around the guard, whose refusals count
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(400, _unreadable)

    _add_classifying(app, batcher, metrics, limits, min_confidence)
    _add_state(app, batcher, metrics, classifier.labels)
    _add_page(app)
    return app


_REFUSALS: dict[int | str, dict[str, str]] = {
    401: {"description": "No key, or another one"},
    403: {"description": "Another name for this server than it has"},
    413: {"description": "The body is too large"},
    415: {"description": "The body is not said to be JSON, or is packed"},
    422: {"description": "Too many texts, too long ones, or not what is expected"},
    429: {"description": "Too many texts are waiting; `Retry-After` says when to come again"},
    500: {"description": "The classifier failed"},
    503: {"description": "Too many connections, or the server is ending"},
}


def _add_classifying(app: FastAPI, batcher: Batcher, metrics: Metrics, limits: Limits, min_confidence: float) -> None:
    @app.post("/classify", responses=_REFUSALS)
    async def classify(body: ClassifyRequest, request: Request) -> ClassifyResponse:
        """Labels of texts."""
        texts = body.all_texts
        _check(texts, limits)
        try:
            predictions = await _unless_gone(request, batcher.classify(texts))
        except OverloadedError:
            detail = f"more than {limits.waiting:,} texts are waiting; try again later"
            raise HTTPException(429, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)}) from None
        except ClassifierError:
            logger.exception("texts that cannot be classified")
            raise HTTPException(500, "the classifier failed on these texts; the server's log says why") from None
        except StoppedError:
            raise HTTPException(503, "the server is ending") from None
        answers = [_shown(one, body.top, min_confidence) for one in predictions]
        metrics.on_answers((answer.label, answer.confidence) for answer in answers)
        return ClassifyResponse(predictions=answers)


def _add_state(app: FastAPI, batcher: Batcher, metrics: Metrics, names: Sequence[str]) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Whether it classifies; the model is loaded before it listens."""
        if not batcher.is_alive:
            raise HTTPException(503, "the classifier has ended; start the server again")
        return Health(status="ok", version=version.VERSION)

    @app.get("/labels")
    async def labels() -> Labels:
        """The classes of the model."""
        return Labels(labels=list(names))

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=metrics.content_type)


def _check(texts: list[str], limits: Limits) -> None:
    if len(texts) > limits.texts:
        raise HTTPException(422, f"{len(texts):,} texts; at most {limits.texts:,} at a time")
    for number, text in enumerate(texts):
        if len(text) > limits.chars:
            raise HTTPException(422, f"texts.{number} has {len(text):,} characters; at most {limits.chars:,}")


def _shown(prediction: Prediction, top: int, min_confidence: float) -> ClassifiedText:
    best_first = heapq.nlargest(top, prediction.probabilities.items(), key=lambda pair: pair[1])
    return ClassifiedText(
        label=prediction.label_if(min_confidence),
        confidence=prediction.confidence,
        top=[LabelProbability(label=label, probability=probability) for label, probability in best_first],
    )


async def _unless_gone(request: Request, classifying: Coroutine[Any, Any, list[Prediction]]) -> list[Prediction]:
    """What the texts of a client that hangs up wait for is given up."""
    work = asyncio.create_task(classifying)
    hanging_up = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({work, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return await work
        raise HTTPException(CLIENT_HAS_GONE, "the client has gone")
    finally:
        for task in (work, hanging_up):
            task.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _unreadable(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse(
        {"detail": "the body is not JSON in UTF-8, or nested too deeply, or has too long a number"}, 422
    )


async def _unprocessable(request: Request, error: Exception) -> JSONResponse:
    """In one sentence, and without the texts that were sent."""
    if "json" not in request.headers.get("content-type", ""):
        return JSONResponse({"detail": "send JSON, with the header Content-Type: application/json"}, 415)
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    problems = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in islice(found, 5)]
    return JSONResponse({"detail": "; ".join(problems)}, 422)


def _add_page(app: FastAPI) -> None:
    """A page to try texts by hand, with its style and script."""
    folder = resources.files("pgkd_agent.answering.serving") / "page"
    page, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("index.html", "page.css", "page.js")
    )

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers=PAGE_HEADERS)

    @app.get("/page.css", include_in_schema=False)
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js", include_in_schema=False)
    async def js() -> Response:
        return Response(script, media_type="text/javascript")
