"""From a provider's exception to what to do about it; the only retry layer (clients have theirs off)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TypeVar

import tenacity
from langchain_core.exceptions import ContextOverflowError

from pgkd_agent.errors import PGKDError, TeacherContextError, TeacherUnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds between two tries, where the provider does not say how long to wait."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds that a provider may ask us to wait; a run should not hang for hours on one call."""


class Kind(StrEnum):
    AUTH = "credentials missing or refused"
    QUOTA = "quota used up"
    PASSING = "rate limit, time-out, connection or server error"
    CONTEXT = "prompt longer than the model's context"
    REJECTED = "request rejected"


_AUTH_CODES = {
    "AccessDeniedException",
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "NoCredentialsError",
}
_CONTEXT_SIGNS = ("context_length_exceeded", "exceed_context_size_error", "available context size")
_PASSING_CODES = {"ThrottlingException", "ModelNotReadyException", "ServiceUnavailableException"}
_PASSING_TYPES = (
    "ConnectionError",
    "ConnectError",
    "TimeoutError",
    "ReadTimeout",
    "Timeout",
    "EndpointConnectionError",
)


def classify(error: BaseException) -> Kind:
    """Read status, code and type; providers share no base class.

    `insufficient_quota` arrives as a retryable 429, so the code is looked at before the status.
    """
    aws_status, aws_code = _aws(error)
    status = getattr(error, "status_code", None) or aws_status
    code = getattr(error, "code", None) or aws_code
    name = type(error).__name__
    said = f"{code} {error}"
    if isinstance(error, ContextOverflowError) or any(sign in said for sign in _CONTEXT_SIGNS):
        return Kind.CONTEXT
    if status in (401, 403) or code in _AUTH_CODES or name in _AUTH_CODES:
        return Kind.AUTH
    if code in ("insufficient_quota", "ServiceQuotaExceededException"):
        return Kind.QUOTA
    if status in (408, 409, 429) or (status or 0) >= 500 or code in _PASSING_CODES:
        return Kind.PASSING
    if name.endswith(_PASSING_TYPES) or isinstance(error, (ConnectionError, TimeoutError)):
        return Kind.PASSING
    return Kind.REJECTED


def call_with_retries(call: Callable[[], T], max_attempts: int, what: str) -> T:
    """Call, and again after a passing failure: after the time that the provider names, else with exponential waits
    and jitter.

    Raises:
        TeacherUnavailableError: Another kind of failure, the last try failed too, or the provider asks for a wait
            of more than `LONGEST_RETRY_AFTER`.
    """
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(max_attempts),
        wait=_wait,
        retry=tenacity.retry_if_exception(_is_worth_another_try),
        before_sleep=_say,
        reraise=True,
    )
    try:
        return retrying(call)
    except PGKDError:
        raise
    except Exception as error:
        raise unavailable(error, what) from error


def retry_after(error: BaseException) -> float | None:
    """Seconds that the provider asks to wait (its header `Retry-After`, a number or a date); None where it does not."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    else:
        headers = getattr(response, "headers", {})
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # neither a number nor a date with a time zone
        return None


def _is_worth_another_try(error: BaseException) -> bool:
    return classify(error) is Kind.PASSING and (retry_after(error) or 0) <= LONGEST_RETRY_AFTER


_backoff = tenacity.wait_exponential_jitter(initial=1, max=LONGEST_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    asked = retry_after(error) if state.outcome and (error := state.outcome.exception()) else None
    return _backoff(state) if asked is None else asked


def unavailable(error: BaseException, what: str) -> TeacherUnavailableError:
    kind = classify(error)
    remedy = {
        Kind.AUTH: "check the credentials in the environment (OPENAI_API_KEY, AWS_ACCESS_KEY_ID, ...), and that the "
        "account may use this model",
        Kind.QUOTA: "raise the quota or pay the account; repeating will not help",
        Kind.PASSING: "check the network, the base URL and that the server runs, then start again",
        Kind.CONTEXT: "show fewer rows (--set evidence.few_shot=4, teacher.max_text_chars=500) or take a model with a "
        "larger context (of a local one: --set teacher.context_tokens=8192)",
        Kind.REJECTED: "check the model's name and the settings it is called with",
    }[kind]
    if (seconds := retry_after(error)) is not None:
        remedy = f"the provider asks to wait {seconds:.0f} s; {remedy}"
    text = (str(error).splitlines() or [""])[0][:300]
    kind_of_error = TeacherContextError if kind is Kind.CONTEXT else TeacherUnavailableError
    return kind_of_error(f"{what}: {kind.value} ({type(error).__name__}: {text}); {remedy}")


def _aws(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and error code of a botocore error."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None, None
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), response.get("Error", {}).get("Code")


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.warning("teacher: %s; trying again in %.0f s", type(error).__name__, wait)
