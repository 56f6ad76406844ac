"""The HTTP API of a student."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

import pgkd_agent
from pgkd_agent.serving.batching import Batcher, OverloadedError
from pgkd_agent.serving.limits import Guard, Limits
from pgkd_agent.serving.metrics import Metrics
from pgkd_agent.student.classifier import Prediction, StudentClassifier
from pgkd_agent.text import well_formed

MAX_BATCH = 64
RETRY_AFTER_SECONDS = 1
PAGE_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'"


class ClassifyRequest(BaseModel):
    """One text, or several."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    """A text; instead of `texts`."""
    texts: list[str] | None = None
    """Texts, answered in this order."""
    top: Annotated[int, Field(ge=1)] = 1
    """How many of the most probable labels to name for each text."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ClassifyRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either 'text' or 'texts'")
        return self

    @property
    def all_texts(self) -> list[str]:
        return [self.text] if self.text is not None else list(self.texts or ())


class ClassifiedText(BaseModel):
    """`label` is null where the confidence is below the server's `--min-confidence`."""

    label: str | None
    confidence: float
    """Probability of the most probable label."""
    probabilities: dict[str, float]
    """Of the `top` most probable labels, these first."""


class ClassifyResponse(BaseModel):
    """One for each text, in order."""

    predictions: list[ClassifiedText]


class Health(BaseModel):
    status: str
    version: str


class Labels(BaseModel):
    labels: list[str]


def create_app(
    classifier: StudentClassifier,
    limits: Limits | None = None,
    *,
    max_batch: int = MAX_BATCH,
    min_confidence: float = 0.0,
    key: str | None = None,
) -> FastAPI:
    """
    Args:
        max_batch: Texts that go through the model at a time; 1 leaves each request alone.
        min_confidence: Below it a text gets no label.
        key: That requests have to bring; None asks for none.
    """
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
        version=pgkd_agent.__version__,
        description="A text classifier.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.add_middleware(Guard, key=key, body_bytes=limits.body_bytes)
    app.add_exception_handler(RequestValidationError, _unprocessable)

    @app.middleware("http")
    async def measured(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path != "/classify":
            return await go_on(request)
        started, status = time.perf_counter(), 500
        try:
            response = await go_on(request)
            status = response.status_code
            return response
        finally:
            metrics.on_request(status, time.perf_counter() - started)

    @app.post("/classify", responses=_REFUSALS)
    async def classify(body: ClassifyRequest) -> ClassifyResponse:
        """Labels of texts."""
        texts = body.all_texts
        _check(texts, limits)
        try:
            predictions = await batcher.classify(texts)
        except OverloadedError:
            detail = f"more than {limits.waiting:,} texts are waiting; try again later"
            raise HTTPException(429, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)}) from None
        metrics.on_predictions(predictions)
        return ClassifyResponse(predictions=[_shown(one, body.top, min_confidence) for one in predictions])

    @app.get("/health")
    async def health() -> Health:
        """Whether it is there; the model is loaded before it listens."""
        return Health(status="ok", version=pgkd_agent.__version__)

    @app.get("/labels")
    async def labels() -> Labels:
        """The classes of the model."""
        return Labels(labels=list(classifier.labels))

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics() -> Response:
        return Response(metrics.render(), media_type=metrics.content_type)

    _add_page(app)
    return app


_REFUSALS: dict[int | str, dict[str, str]] = {
    401: {"description": "No key, or another one"},
    413: {"description": "The body is too large"},
    422: {"description": "Too many texts, too long ones, or not what is expected"},
    429: {"description": "Too many texts are waiting; `Retry-After` says when to come again"},
}


def _check(texts: list[str], limits: Limits) -> None:
    if len(texts) > limits.texts:
        raise HTTPException(422, f"{len(texts):,} texts; at most {limits.texts:,} at a time")
    for number, text in enumerate(texts):
        if len(text) > limits.chars:
            raise HTTPException(422, f"texts.{number} has {len(text):,} characters; at most {limits.chars:,}")
        if well_formed(text) != text:
            raise HTTPException(422, f"texts.{number} holds half of a surrogate pair, which is no text")


def _shown(prediction: Prediction, top: int, min_confidence: float) -> ClassifiedText:
    best_first = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:top]
    return ClassifiedText(
        label=prediction.label if prediction.confidence >= min_confidence else None,
        confidence=prediction.confidence,
        probabilities=dict(best_first),
    )


async def _unprocessable(_request: Request, error: Exception) -> JSONResponse:
    """In one sentence, and without the texts that were sent."""
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    problems = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in found]
    return JSONResponse({"detail": "; ".join(problems[:5])}, 422)


def _add_page(app: FastAPI) -> None:
    """A page to try texts by hand, with its style and script."""
    folder = resources.files("pgkd_agent.serving") / "page"
    page, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("index.html", "page.css", "page.js")
    )

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/page.css", include_in_schema=False)
    async def css() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/page.js", include_in_schema=False)
    async def js() -> Response:
        return Response(script, media_type="text/javascript")
