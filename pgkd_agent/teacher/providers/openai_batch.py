"""Batch jobs of OpenAI: a file of requests, a file of answers, a file of errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from langchain_core.language_models import BaseChatModel

from pgkd_agent.teacher.providers.batch import Exchange, Progress, Result

logger = logging.getLogger(__name__)

ENDPOINT = "/v1/chat/completions"
NAME = "pgkd_job"
"""Of the metadata by which a job is found again."""
CLOCKS_DIFFER = timedelta(days=1)
"""At most, with what jobs took to be made."""
_OVER = ("completed", "expired", "cancelled", "failed")
_TOO_LARGE = "token_limit_exceeded"
"""Code of a refusal: more tokens than the account may have waiting."""


class OpenAIBatches:
    """See `BatchJobs`.

    Args:
        model: A `ChatOpenAI`.
    """

    most_requests = 50_000
    most_bytes = 200_000_000

    def __init__(self, model: Any) -> None:
        self._client = model.root_client

    def detached(self, model: BaseChatModel, exchange: Exchange) -> BaseChatModel:
        import openai

        client = self._client.with_options(http_client=exchange.client(openai.DefaultHttpxClient))
        return model.model_copy(update={"root_client": client, "client": client.chat.completions})

    def create(self, name: str, requests: Mapping[str, Any]) -> str:
        lines = [
            {"custom_id": number, "method": "POST", "url": ENDPOINT, "body": body} for number, body in requests.items()
        ]
        content = "".join(f"{json.dumps(line)}\n" for line in lines)
        file = self._client.files.create(file=(f"{name}.jsonl", content.encode()), purpose="batch")
        job = self._client.batches.create(
            input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={NAME: name}
        )
        return str(job.id)

    def find(self, name: str, made: datetime, requests: int) -> str | None:
        oldest = (made - CLOCKS_DIFFER).timestamp()
        for job in self._client.batches.list(limit=100):  # newest first, page after page
            if job.created_at < oldest:
                return None
            if (job.metadata or {}).get(NAME) == name:
                return str(job.id)
        return None

    def look(self, job: str) -> Progress:
        found = self._client.batches.retrieve(job)
        counts, errors = found.request_counts, (found.errors.data if found.errors else None) or []
        done = counts.completed + counts.failed if counts else 0
        said = "; ".join(f"{error.message} ({error.code})" for error in errors[:3])
        return Progress(
            done,
            counts.total if counts else 0,
            is_over=found.status in _OVER,
            ended=said or (found.status if found.status != "completed" else ""),
            is_refused=found.status == "failed",
            is_too_large=any(error.code == _TOO_LARGE for error in errors),
        )

    def results(self, job: str) -> Iterator[Result]:
        found = self._client.batches.retrieve(job)
        for file in filter(None, (found.output_file_id, found.error_file_id)):
            for line in self._client.files.content(file).text.split("\n"):  # a text may hold other ends of a line
                if line.strip() and (result := _read(line)):
                    yield result


def _read(line: str) -> Result | None:
    try:
        found = json.loads(line)
        response = found.get("response") or {}
        return Result(str(found["custom_id"]), response.get("status_code") or 0, response.get("body"))
    except (ValueError, LookupError, TypeError, AttributeError):
        logger.warning("a line of a batch job's results cannot be read and is left out: %.80r", line)
        return None
