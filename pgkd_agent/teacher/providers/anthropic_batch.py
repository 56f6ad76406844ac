"""Batch jobs of Anthropic (Message Batches)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from langchain_core.language_models import BaseChatModel

from pgkd_agent.teacher.providers.batch import Exchange, Progress, Result

CLOCKS_DIFFER = timedelta(minutes=10)
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Of a direct call that fails with an error of this type; 500 of others."""


class AnthropicBatches:
    """See `BatchJobs`.

    Args:
        model: A `ChatAnthropic`.
    """

    most_requests = 100_000
    most_bytes = 256_000_000

    def __init__(self, model: Any) -> None:
        self._client = model._client
        self._jobs = self._client.messages.batches

    def detached(self, model: BaseChatModel, exchange: Exchange) -> BaseChatModel:
        import anthropic

        copy = model.model_copy()
        # where the model keeps the client that it builds with its first call
        vars(copy)["_client"] = self._client.with_options(http_client=exchange.client(anthropic.DefaultHttpxClient))
        return copy

    def create(self, name: str, requests: Mapping[str, Any]) -> str:
        job = self._jobs.create(requests=[{"custom_id": number, "params": body} for number, body in requests.items()])
        return str(job.id)

    def find(self, name: str, made: datetime, requests: int) -> str | None:
        """By age and size, since a job here has no name; the ids in its results show whose it is, once it is over."""
        alike: list[Any] = []
        for job in self._jobs.list(limit=100):  # newest first, page after page
            if job.created_at < made - CLOCKS_DIFFER:
                break
            if _total(job) == requests:
                alike.append(job)
        for job in reversed(alike):
            is_over = job.processing_status == "ended"
            if not is_over or any(result.request_id.startswith(name) for result in self.results(job.id)):
                return str(job.id)
        return None

    def look(self, job: str) -> Progress:
        found = self._jobs.retrieve(job)
        counts, total = found.request_counts, _total(found)
        ended = "expired" if counts.expired else "cancelled" if counts.canceled else ""
        return Progress(total - counts.processing, total, found.processing_status == "ended", ended)

    def results(self, job: str) -> Iterator[Result]:
        for line in self._jobs.results(job):
            number, result = line.custom_id, line.result
            if result.type == "succeeded":
                yield Result(number, 200, result.message.to_dict(mode="json"))
            elif result.type == "errored":
                body = result.error.to_dict(mode="json")
                yield Result(number, _STATUS.get(result.error.error.type, 500), body)
            else:
                yield Result(number, 0)


def _total(job: Any) -> int:
    counts = job.request_counts
    return int(counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired)
