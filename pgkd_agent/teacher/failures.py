"""From a provider's exception to what to do about it; the only retry layer (clients have theirs off)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import tenacity

from pgkd_agent.errors import PGKDError, TeacherUnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds between two tries."""


class Kind(StrEnum):
    AUTH = "credentials missing or refused"
    QUOTA = "quota used up"
    PASSING = "rate limit, time-out, connection or server error"
    REJECTED = "request rejected"


_AUTH_CODES = {
    "AccessDeniedException",
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "NoCredentialsError",
}
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
    """Call, and again after a passing failure, with exponential waits and jitter.

    Raises:
        TeacherUnavailableError: Another kind of failure, or the last try failed too.
    """
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(max_attempts),
        wait=tenacity.wait_exponential_jitter(initial=1, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(lambda error: classify(error) is Kind.PASSING),
        before_sleep=_say,
        reraise=True,
    )
    try:
        return retrying(call)
    except PGKDError:
        raise
    except Exception as error:
        raise unavailable(error, what) from error


def unavailable(error: BaseException, what: str) -> TeacherUnavailableError:
    kind = classify(error)
    remedy = {
        Kind.AUTH: "check the credentials in the environment (OPENAI_API_KEY, AWS_ACCESS_KEY_ID, ...), and that the "
        "account may use this model",
        Kind.QUOTA: "raise the quota or pay the account; repeating will not help",
        Kind.PASSING: "check the network, the base URL and that the server runs, then start again",
        Kind.REJECTED: "check the model's name and the settings it is called with",
    }[kind]
    text = (str(error).splitlines() or [""])[0][:300]
    return TeacherUnavailableError(f"{what}: {kind.value} ({type(error).__name__}: {text}); {remedy}")


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
