"""From a provider's exception to what is done about it; the only retry layer (clients have theirs off).

kind      what follows
AUTH      the run ends, naming the variables
QUOTA     the run ends
NO_MODEL  the run ends
PASSING   tried again after a wait, bounded in number and time; then the run ends
CONTEXT   the prompt is shortened (`teacher.chain`); where nothing is left to drop, the run ends
REFUSED   counted, asked once more, else the request brings nothing (`teacher.chain`)
REJECTED  the setting it names is dropped and the call repeated (`teacher.dialect`); else the run ends
NOT_API   the run ends: something else than the provider's API answered
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, TypeVar

import tenacity
from langchain_core.exceptions import ContextOverflowError

from pgkd_agent.errors import TeacherContextError, TeacherRejectedError, TeacherUnavailableError

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
    NO_MODEL = "no such model"
    CONTEXT = "prompt longer than the model's context"
    REFUSED = "refused for its content"
    REJECTED = "request rejected"
    NOT_API = "not an answer of the provider's API"


SURVIVABLE: dict[Kind, type[TeacherUnavailableError]] = {
    Kind.CONTEXT: TeacherContextError,
    Kind.REJECTED: TeacherRejectedError,
}
"""Failures that a run can go on after, with a shorter prompt or without tools; each with its error."""

_AUTH_CODES = {
    "AccessDeniedException",
    "UnrecognizedClientException",
    "ExpiredTokenException",
    "InvalidSignatureException",
}
_AUTH_TYPES = (  # botocore's, before anything is sent
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
)
_AUTH_SIGNS = (
    "API key not valid",  # Google, with status 400
    "Could not resolve authentication method",  # Anthropic's client, without a key
)
_CONTEXT_SIGNS = (
    "context_length_exceeded",
    "exceed_context_size_error",
    "available context size",
    "maximum context length",  # vLLM
    "exceed context limit",  # Anthropic, of prompt and reply together
    "longer than the context length",  # Ollama
    "prompt is too long",  # Anthropic
    "Input is too long",  # Bedrock
    "exceeds the maximum number of tokens",  # Google
)
_QUOTA_CODES = ("insufficient_quota", "billing_not_active", "ServiceQuotaExceededException")
_QUOTA_SIGNS = ("credit balance is too low",)
_TRIPPED = (json.JSONDecodeError, AttributeError, TypeError, LookupError)
"""What clients raise that take any answer with status 200 for one of the API."""
_NOT_API_SIGNS = ("Unexpected response type", "No 'output' key found")
_BROKE_OFF = -1
"""Status that Ollama's client gives an error in the middle of a reply."""
_PASSING_CODES = {"ThrottlingException", "ModelNotReadyException", "ServiceUnavailableException"}
_REFUSED_SIGNS = (
    "content_filter",
    "content filter being triggered",  # LangChain, of a reply that Azure held back
    "content_policy_violation",
    "ResponsibleAIPolicyViolation",
)
_REFUSED_TYPES = ("OpenAIRefusalError", "ContentFilterFinishReasonError")
_NO_MODEL_CODES = ("model_not_found", "ResourceNotFoundException", "DeploymentNotFound")
_NO_MODEL_SIGNS = ("model identifier is invalid",)
_PASSING_TYPES = (
    "ConnectionError",
    "ConnectError",
    "TimeoutError",
    "ReadTimeout",
    "Timeout",
    "EndpointConnectionError",
    "ConnectionClosedError",
    "ProtocolError",
    "ReadError",
    "WriteError",
    "CloseError",
    "ProxyError",
    "SSLError",
    "HTTPClientError",
    "ResponseStreamingError",
)
_GAVE_UP_WAITING = (408, 502, 504, 520, 524, _BROKE_OFF)
"""Status of errors that say nothing about whether the model worked on the request."""
_NEVER_SENT = (
    "ConnectError",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "ConnectionRefusedError",
    "EndpointConnectionError",
    "PoolTimeout",
    "ProxyConnectionError",
    "UnsupportedProtocol",
    "LocalProtocolError",
    "ParamValidationError",
    *_AUTH_TYPES,
)


def classify(error: BaseException) -> Kind:
    """Read status, code and type; providers share no base class.

    `insufficient_quota` arrives as a retryable 429, so the code is looked at before the status. LangChain's classes
    may wrap what their client raised, so the causes are looked at too.
    """
    status, code = _status(error), _code(error)
    name = type(error).__name__
    said = f"{code} {error}"
    if isinstance(error, ContextOverflowError) or status == 413 or any(sign in said for sign in _CONTEXT_SIGNS):
        return Kind.CONTEXT
    if name in _REFUSED_TYPES or any(sign in said for sign in _REFUSED_SIGNS):
        return Kind.REFUSED
    if status in (401, 403) or code in _AUTH_CODES or name in _AUTH_TYPES or any(sign in said for sign in _AUTH_SIGNS):
        return Kind.AUTH
    if status == 402 or code in _QUOTA_CODES or any(sign in said for sign in _QUOTA_SIGNS):
        return Kind.QUOTA
    if status == 404 or code in _NO_MODEL_CODES or any(sign in said for sign in _NO_MODEL_SIGNS):
        return Kind.NO_MODEL
    if status in (408, 409, 424, 429, _BROKE_OFF) or (status or 0) >= 500 or code in _PASSING_CODES:
        return Kind.PASSING
    if name.endswith(_PASSING_TYPES) or isinstance(error, (ConnectionError, TimeoutError)):
        return Kind.PASSING
    if (
        status is None
        and code is None
        and (isinstance(error, _TRIPPED) or any(sign in said for sign in _NOT_API_SIGNS))
    ):
        return Kind.NOT_API
    return Kind.REJECTED


def call_with_retries(
    call: Callable[[], T],
    max_attempts: int,
    max_seconds: float,
    sleep: Callable[[float], None] = tenacity.sleep,
) -> T:
    """Call, and again after a passing failure: after the time that the provider names, else with exponential waits
    and jitter.

    Args:
        max_seconds: Since the first try, after which none is begun.
    Raises:
        Exception: What the last try raised: another kind of failure, one try too many, or a provider that asks for
            a wait of more than `LONGEST_RETRY_AFTER`.
    """
    retrying = tenacity.Retrying(
        sleep=sleep,
        stop=tenacity.stop_after_attempt(max_attempts) | tenacity.stop_before_delay(max_seconds),
        wait=_wait,
        retry=tenacity.retry_if_exception(is_worth_another_try),
        before_sleep=_say,
        reraise=True,
    )
    return retrying(call)


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have worked on a call that failed: unless it was never sent, or an error came back.

    After a time-out of a server between there is an error too, while the model may have answered.
    """
    status = _status(error)
    if status is not None:
        return status in _GAVE_UP_WAITING
    return not any(type(link).__name__ in _NEVER_SENT for link in _chain(error))


def retry_after(error: BaseException) -> float | None:
    """Seconds that the provider asks to wait (its header `Retry-After`, a number or a date); None where it does not."""
    value = None
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            metadata = response.get("ResponseMetadata")
            headers = metadata.get("HTTPHeaders", {}) if isinstance(metadata, dict) else {}
        else:
            headers = getattr(response, "headers", {})
        value = value or headers.get("retry-after")
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


def is_worth_another_try(error: BaseException) -> bool:
    return classify(error) is Kind.PASSING and (retry_after(error) or 0) <= LONGEST_RETRY_AFTER


_backoff = tenacity.wait_exponential_jitter(initial=1, max=LONGEST_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    asked = retry_after(error) if state.outcome and (error := state.outcome.exception()) else None
    return _backoff(state) if asked is None else asked


def unavailable(error: BaseException, what: str) -> TeacherUnavailableError:
    kind = classify(error)
    remedy = {
        Kind.AUTH: "check the credentials in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, AWS_ACCESS_KEY_ID, "
        "...), and that the account may use this model",
        Kind.QUOTA: "raise the quota or pay the account; repeating will not help",
        Kind.PASSING: "check the network, the base URL and that the server runs, then start again",
        Kind.NO_MODEL: "check the model's name, and that the account and region have it (Ollama: `ollama pull NAME`)",
        Kind.REFUSED: "look at the texts that are shown to it",
        Kind.NOT_API: "check --base-url: it has to be the address of the API (often it ends in /v1)",
        Kind.CONTEXT: "show fewer rows (--set evidence.few_shot=4, teacher.max_text_chars=500) or take a model with a "
        "larger context (of a local one: --set teacher.context_tokens=8192)",
        Kind.REJECTED: "check the model's name and the settings it is called with",
    }[kind]
    if (seconds := retry_after(error)) is not None:
        remedy = f"the provider asks to wait {seconds:.0f} s; {remedy}"
    text = redacted((str(error).splitlines() or [""])[0])[:300]
    return SURVIVABLE.get(kind, TeacherUnavailableError)(
        f"{what}: {kind.value} ({type(error).__name__}: {text}); {remedy}"
    )


_SECRET_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8


def redacted(text: str) -> str:
    """`text` without values of environment variables that are named like secrets: servers echo keys in errors."""
    for name, value in sorted(os.environ.items(), key=lambda variable: -len(variable[1])):  # one may begin another
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAMES.search(name):
            text = text.replace(value, f"[{name}]")
    return text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status of a failure, wherever a provider's client keeps it; None after an answer with status 200."""
    for link in _chain(error):
        body, response = _body(link), getattr(link, "response", None)
        metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None  # botocore
        for place in (
            getattr(link, "status_code", None),
            getattr(link, "code", None),
            getattr(response, "status_code", None),
            metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None,
            body.get("code"),
        ):
            if isinstance(place, int) and (place >= 400 or place == _BROKE_OFF):
                return int(place)
    return None


def _code(error: BaseException) -> str | None:
    """The provider's own name for the error."""
    for link in _chain(error):
        response = getattr(link, "response", None)
        aws = response.get("Error") if isinstance(response, dict) else None
        for place in (
            getattr(link, "code", None),
            aws.get("Code") if isinstance(aws, dict) else None,
            _body(link).get("code"),
        ):
            if isinstance(place, str):
                return place
    return None


def _body(error: BaseException) -> dict[str, Any]:
    """An error that came with status 200, as gateways send them: LangChain raises its mapping as it is."""
    content = error.args[0] if isinstance(error, ValueError) and error.args else None
    return content if isinstance(content, dict) else {}


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.warning("teacher: %s; trying again in %.0f s", type(error).__name__, wait)
