"""What a provider's batch jobs are to the rest: many requests in one job, answered within a day, for less."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a job: `done` of `total` requests.

    Attributes:
        is_over: Nothing more comes; what has a result can be had.
        ended: How it ended otherwise than by working through, in the provider's words: `expired`, `cancelled`, or
            why it was refused.
        is_refused: No request of it was worked on.
        is_too_large: It was refused for its size alone.
    """

    done: int
    total: int
    is_over: bool = False
    ended: str = ""
    is_refused: bool = False
    is_too_large: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a request: the status and the body that a direct call would have been answered with.

    Attributes:
        request_id: As it was given to `create`.
        status: 0 where the request was not worked on.
    """

    request_id: str
    status: int
    body: Any = None


class BatchJobs(Protocol):
    """The jobs of one model's provider, over the model's own client.

    Attributes:
        most_requests, most_bytes: Of one job.
    """

    most_requests: int
    most_bytes: int

    def detached(self, model: BaseChatModel, exchange: Exchange) -> BaseChatModel:
        """A copy of the model whose calls end at the exchange instead of the provider."""
        ...

    def create(self, name: str, requests: Mapping[str, Any]) -> str:
        """Begin a job, and return its id.

        Args:
            name: Goes along where the provider keeps names.
            requests: Bodies of calls by id.
        """
        ...

    def find(self, name: str, made: datetime, requests: int) -> str | None:
        """The id of a job that was begun when nobody could note it down any more; None where it never was.

        Args:
            made: Shortly before.
            requests: Their number.
        """
        ...

    def look(self, job: str) -> Progress:
        """How far a job is."""
        ...

    def results(self, job: str) -> Iterator[Result]:
        """Of a job that is over, in any order."""
        ...


class Unsent(BaseException):
    """The body of a call that ended at the exchange; no `Exception`, which clients wrap or try again."""

    def __init__(self, body: Any) -> None:
        super().__init__("kept for a batch job")
        self.body = body


class Exchange:
    """In place of the network: so a job's requests are what LangChain's model sends, and its results are read as it
    reads answers, errors included. Not for threads.

    Attributes:
        result: What the next calls are answered with; None raises `Unsent`.
    """

    def __init__(self) -> None:
        self.result: Result | None = None

    def client(self, client_class: Any) -> Any:
        """An HTTP client for a provider's own client.

        Args:
            client_class: The provider's, with `send(request)`.
        """
        send = self._send

        class Detached(client_class):  # type: ignore[misc]
            def send(self, request: Any, **_: Any) -> Any:
                return send(request)

        return Detached(trust_env=False, verify=False)  # it opens no connection: no proxies, no certificates

    def _send(self, request: Any) -> Any:
        if self.result is None:
            raise Unsent(json.loads(request.content))
        http = import_module(type(request).__module__.partition(".")[0])  # httpx, or what newer clients have instead
        return http.Response(self.result.status, json=self.result.body, request=request)
