"""From a provider's exception to its kind, which says what is done about it, and to the error that users see.

Here is what HTTP and its clients have in common; what one provider says is in its file under `teacher.providers`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from langchain_core.exceptions import ContextOverflowError

from pgkd_agent.errors import TeacherContextError, TeacherRejectedError, TeacherUnavailableError
from pgkd_agent.teacher.providers.provider import Kind as Kind
from pgkd_agent.teacher.providers.registry import registered

SURVIVABLE: dict[Kind, type[TeacherUnavailableError]] = {
    Kind.CONTEXT: TeacherContextError,
    Kind.REJECTED: TeacherRejectedError,
}
"""Failures that a run can go on after, with a shorter prompt or without tools; each with its error."""

_BROKE_OFF = -1
"""Status that Ollama's client gives an error in the middle of a reply."""
_STATUSES: Mapping[Kind, Collection[int]] = {
    Kind.CONTEXT: (413,),
    Kind.AUTH: (401, 403),
    Kind.QUOTA: (402,),
    Kind.NO_MODEL: (404,),
    Kind.PASSING: (408, 409, 424, 429, *range(500, 1000), _BROKE_OFF),
}
_CLASSES: Mapping[Kind, tuple[type[BaseException], ...]] = {
    Kind.CONTEXT: (ContextOverflowError,),
    Kind.PASSING: (ConnectionError, TimeoutError),
    # What clients raise that take any answer with status 200 for one of the API.
    Kind.NOT_API: (json.JSONDecodeError, AttributeError, TypeError, LookupError),
}
_PASSING_TYPES = re.compile(r"(Timeout|(Connect|Connection|Timeout|Protocol|Read|Write|Close|Proxy|SSL)Error)$")
"""Names of classes: HTTP clients share no base class."""
_GAVE_UP_WAITING = (408, 502, 504, 520, 524, _BROKE_OFF)
"""Status of errors that say nothing about whether the model worked on the request."""
_NEVER_SENT = (
    "Connect(Error|Timeout|TimeoutError)|ConnectionRefusedError|PoolTimeout|(Unsupported|Local)Protocol(Error)?"
)


def classify(error: BaseException) -> Kind:
    """Read status, code, type and message, of one kind after the other; providers share no base class.

    `insufficient_quota` arrives as a retryable 429, so QUOTA is looked for before PASSING. LangChain's classes may wrap
    what their client raised, so the causes are looked at too.
    """
    status, code, name = _status(error), _code(error), type(error).__name__
    said = f"{name} {code} {error}"
    for kind in Kind:
        if kind is Kind.NOT_API and (status is not None or code is not None):
            continue
        if (
            status in _STATUSES.get(kind, ())
            or isinstance(error, _CLASSES.get(kind, ()))
            or (kind is Kind.PASSING and _PASSING_TYPES.search(name))
            or any(re.search(provider.errors[kind], said) for provider in registered() if kind in provider.errors)
        ):
            return kind
    return Kind.REJECTED


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have worked on a call that failed: unless it was never sent, or an error came back.

    After a time-out of a server between there is an error too, while the model may have answered.
    """
    status = _status(error)
    if status is not None:
        return status in _GAVE_UP_WAITING
    unsent = "|".join(filter(None, (_NEVER_SENT, *(provider.unsent for provider in registered()))))
    return not any(re.fullmatch(unsent, type(link).__name__) for link in _chain(error))


def retry_after(error: BaseException) -> float | None:
    """Seconds that the provider asks to wait (its header `Retry-After`, a number or a date); None where it does not."""
    value = None
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        value = value or (headers or _of_botocore(link, "ResponseMetadata").get("HTTPHeaders", {})).get("retry-after")
    if value is None:
        return None
    with suppress(ValueError):
        return max(float(value), 0.0)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # neither a number nor a date with a time zone
        return None


def unavailable(error: BaseException, what: str) -> TeacherUnavailableError:
    """The error for the user: what failed, why, and what to do; without secrets."""
    kind = classify(error)
    remedy = {
        Kind.AUTH: "check the credentials in the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, AWS_ACCESS_KEY_ID, "
        "...), and that the account may use this model",
        Kind.QUOTA: "raise the quota or pay the account; repeating will not help",
        Kind.PASSING: "check the network, the base URL and that the server runs, then start again",
        Kind.NO_MODEL: "check the model's name, and that the account and region have it (Ollama: `ollama pull NAME`)",
        Kind.REFUSED: "look at the texts that are shown to it",
        Kind.NOT_API: "check `teacher.base_url`: it has to be the address of the API (often it ends in /v1)",
        Kind.CONTEXT: "show fewer rows (`evidence.few_shot=4`, `teacher.max_text_chars=500`) or take a model with a "
        "larger context (of a local one: `teacher.context_tokens=8192`)",
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
    """The HTTP status of a failure; None after an answer with status 200."""
    numbers = (place for place in _places(error) if isinstance(place, int))
    return next((number for number in numbers if number >= 400 or number == _BROKE_OFF), None)


def _code(error: BaseException) -> str | None:
    """The provider's own name for the error."""
    return next((place for place in _places(error) if isinstance(place, str)), None)


def _places(error: BaseException) -> Iterator[Any]:
    """Wherever the clients of providers keep status and code."""
    for link in _chain(error):
        yield getattr(link, "status_code", None)
        yield getattr(link, "code", None)
        yield getattr(getattr(link, "response", None), "status_code", None)
        yield _of_botocore(link, "ResponseMetadata").get("HTTPStatusCode")
        yield _of_botocore(link, "Error").get("Code")
        yield _body(link).get("code")


def _of_botocore(error: BaseException, part: str) -> dict[str, Any]:
    """A part of the answer behind an error, which botocore keeps as a mapping; empty with other clients."""
    response = getattr(error, "response", None)
    content = response.get(part) if isinstance(response, dict) else None
    return content if isinstance(content, dict) else {}


def _body(error: BaseException) -> dict[str, Any]:
    """An error that came with status 200, as gateways send them: LangChain raises its mapping as it is."""
    content = error.args[0] if isinstance(error, ValueError) and error.args else None
    return content if isinstance(content, dict) else {}
