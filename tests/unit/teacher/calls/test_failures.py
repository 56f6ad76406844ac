"""From a provider's exception to what is done about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from langchain_core.exceptions import ContextOverflowError

from pgkd_agent.teacher.calls.failures import Kind, classify, may_be_billed, redacted, retry_after, unavailable


def aws(code: str, status: int = 400, **headers: str) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata}, "Converse")


class Http(Exception):
    """Shaped like the errors of the OpenAI client and its kin."""

    def __init__(self, status: int, code: str | None = None, **headers: str) -> None:
        super().__init__(f"status {status}")
        self.status_code = status
        self.code = code
        self.response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


class OpenAIContextOverflow(ContextOverflowError):
    """As the clients of all providers raise it, each with a class of its own."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Http(401), Kind.AUTH),
        (Http(403), Kind.AUTH),
        (Http(429), Kind.PASSING),
        (Http(429, "insufficient_quota"), Kind.QUOTA),
        (Http(408), Kind.PASSING),
        (Http(500), Kind.PASSING),
        (Http(503), Kind.PASSING),
        (Http(404, "model_not_found"), Kind.NO_MODEL),
        (Http(404), Kind.NO_MODEL),
        (aws("ResourceNotFoundException", 404), Kind.NO_MODEL),
        (Http(402), Kind.QUOTA),
        (Http(-1), Kind.PASSING),
        (Http(400, "content_filter"), Kind.REFUSED),
        (Http(400), Kind.REJECTED),
        (AttributeError("'str' object has no attribute 'choices'"), Kind.NOT_API),
        (OpenAIContextOverflow("too long"), Kind.CONTEXT),
        (ValueError("request (900 tokens) exceeds the available context size (512 tokens)"), Kind.CONTEXT),
        (Http(400, "context_length_exceeded"), Kind.CONTEXT),
        (ValueError("This model's maximum context length is 4096 tokens and your request has 5000"), Kind.CONTEXT),
        (ValueError("input length and `max_tokens` exceed context limit: 9 + 9 > 10"), Kind.CONTEXT),
        (aws("ThrottlingException", 429), Kind.PASSING),
        (aws("ModelNotReadyException", 429), Kind.PASSING),
        (aws("InternalServerException", 500), Kind.PASSING),
        (aws("ModelTimeoutException", 408), Kind.PASSING),
        (aws("AccessDeniedException", 403), Kind.AUTH),
        (aws("UnrecognizedClientException", 403), Kind.AUTH),
        (aws("ExpiredTokenException", 403), Kind.AUTH),
        (aws("ServiceQuotaExceededException", 400), Kind.QUOTA),
        (aws("ValidationException", 400), Kind.REJECTED),
        (NoCredentialsError(), Kind.AUTH),
        (EndpointConnectionError(endpoint_url="x"), Kind.PASSING),
        (ReadTimeoutError(endpoint_url="x"), Kind.PASSING),
        (ConnectionResetError(), Kind.PASSING),
        (TimeoutError(), Kind.PASSING),
        (ValueError("bad"), Kind.REJECTED),
    ],
)
def test_kinds(error: Exception, kind: Kind) -> None:
    assert classify(error) is kind


def test_how_long_the_provider_asks_to_wait() -> None:
    assert retry_after(Http(429, retry_after="7")) == 7
    assert retry_after(Http(429, retry_after="1.5")) == 1.5
    assert retry_after(aws("ThrottlingException", 429, **{"retry-after": "3"})) == 3
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert retry_after(Http(503, retry_after=in_a_minute)) == pytest.approx(60, abs=2)
    assert retry_after(Http(503, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")) == 0
    for without in (Http(429), Http(429, retry_after="soon"), aws("ThrottlingException"), TimeoutError()):
        assert retry_after(without) is None


def test_values_of_variables_that_are_named_like_secrets_are_cut_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-planted-1234")
    monkeypatch.setenv("OTHER_TOKEN", "short")
    monkeypatch.setenv("A_LONGER_KEY", "sk-planted-1234-and-more")
    assert redacted("not sk-planted-1234-and-more") == "not [A_LONGER_KEY]"
    error = unavailable(ValueError("Incorrect API key provided: sk-planted-1234, a short one"), "teacher m")
    assert "sk-planted" not in str(error) and "[SOME_API_KEY], a short one" in str(error)


def wrapped(cause: Exception) -> Exception:
    """As LangChain's classes raise their client's errors."""
    error = RuntimeError("the provider failed")
    error.__cause__ = cause
    return error


class Google(Exception):
    """Google's clients keep the status as `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code} RESOURCE_EXHAUSTED")
        self.code = code


class Response:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class OnResponse(Exception):
    """httpx' own error, which Mistral's client raises: the status is the response's."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__("client error")
        self.response = Response(status, **headers)


@pytest.mark.parametrize("make", [Google, OnResponse, lambda status: wrapped(Google(status))])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Kind.AUTH), (404, Kind.NO_MODEL), (429, Kind.PASSING), (503, Kind.PASSING), (400, Kind.REJECTED)],
)
def test_a_status_is_found_where_a_client_keeps_it(make: Callable[[int], Exception], status: int, kind: Kind) -> None:
    assert classify(make(status)) is kind and not may_be_billed(make(status))


@pytest.mark.parametrize(
    ("error", "kind", "billed"),
    [
        (ValueError({"code": 429, "message": "rate-limited upstream"}), Kind.PASSING, False),  # a gateway's, status 200
        (ValueError({"code": 401, "message": "no"}), Kind.AUTH, False),
        (wrapped(OnResponse(200)), Kind.REJECTED, True),
        (IndexError("list index out of range"), Kind.EMPTY, True),
        (TypeError("'NoneType' object is not subscriptable"), Kind.EMPTY, True),
        (TypeError("'str' object is not a mapping"), Kind.NOT_API, True),
        (json.JSONDecodeError("Expecting value", "<html>", 0), Kind.NOT_API, True),
        (json.JSONDecodeError("Expecting value", "", 0), Kind.EMPTY, True),
        (PartialCredentialsError(provider="env", cred_var="x"), Kind.AUTH, False),
        (Http(400, "API key not valid. Please pass a valid API key."), Kind.AUTH, False),
        (Http(400, "The input token count (9) exceeds the maximum number of tokens allowed (8)."), Kind.CONTEXT, False),
        (Http(413), Kind.CONTEXT, False),
        (Http(424), Kind.PASSING, False),
        (SSLError(endpoint_url="x", error="bad"), Kind.PASSING, True),
    ],
)
def test_kinds_of_rarer_failures(error: Exception, kind: Kind, billed: bool) -> None:
    assert classify(error) is kind and may_be_billed(error) is billed
    assert retry_after(error) is None


def test_the_wait_that_is_asked_for_is_found_behind_a_wrapping_error() -> None:
    assert retry_after(wrapped(OnResponse(429, retry_after="7"))) == 7


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (Http(500), False),
        (Http(429), False),
        (aws("InternalServerException", 500), False),
        (TimeoutError(), True),
        (ReadTimeoutError(endpoint_url="x"), True),
        (ConnectionResetError(), True),
        (EndpointConnectionError(endpoint_url="x"), False),
        (ValueError("the answer could not be parsed"), True),
        (KeyError("choices"), True),
        (Http(504), True),
        (Http(408), True),
        (wrapped(EndpointConnectionError(endpoint_url="x")), False),
        (wrapped(Http(429)), False),
        (wrapped(ReadTimeoutError(endpoint_url="x")), True),
    ],
)
def test_what_a_provider_may_have_worked_on(error: Exception, billed: bool) -> None:
    assert may_be_billed(error) is billed
