"""What Prometheus reads: load, times, and what a drift of the texts would show in, labels and confidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CONFIDENCES = tuple(tenths / 10 for tenths in range(1, 11))


class Metrics:
    """
    Args:
        waiting: Asked for the texts that wait when the figures are read.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, labels: Iterable[str], waiting: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter("pgkd_requests", "Requests by status", ["status"], registry=registry)
        self._seconds = Histogram("pgkd_request_seconds", "From request to answer", buckets=SECONDS, registry=registry)
        self._batch = Histogram("pgkd_batch_texts", "Texts in a call of the model", buckets=TEXTS, registry=registry)
        self._labels = Counter("pgkd_labels", "Texts by the label given", ["label"], registry=registry)
        self._abstained = Counter("pgkd_abstained", "Texts that got no label", registry=registry)
        self._confidence = Histogram(
            "pgkd_confidence", "Of the most probable label", buckets=CONFIDENCES, registry=registry
        )
        gauge = Gauge("pgkd_waiting_texts", "Texts not yet being classified", registry=registry)
        gauge.set_function(waiting)
        for label in labels:  # there from the start, at 0
            self._labels.labels(label)

    def on_request(self, status: int, seconds: float) -> None:
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def on_batch(self, texts: int) -> None:
        self._batch.observe(texts)

    def on_answers(self, answers: Iterable[tuple[str | None, float]]) -> None:
        """
        Args:
            answers: The label given to each text, None where none was, and the confidence.
        """
        for label, confidence in answers:
            if label is None:
                self._abstained.inc()
            else:
                self._labels.labels(label).inc()
            self._confidence.observe(confidence)

    def render(self) -> bytes:
        return generate_latest(self._registry)


class Timing:
    """Tells the metrics of each request to `path`: its status, and how long it took."""

    def __init__(self, app: ASGIApp, path: str, metrics: Metrics) -> None:
        self._app = app
        self._path = path
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.on_request(status, time.perf_counter() - started)
