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
from pydantic import ValidationError

from pgkd_agent.config import provider_of
from pgkd_agent.errors import TeacherContextError, TeacherRejectedError, TeacherUnavailableError
from pgkd_agent.teacher.providers.connection import NOT_SET_UP, advice
from pgkd_agent.teacher.providers.provider import Kind as Kind
from pgkd_agent.teacher.providers.registry import provider_named, registered

SURVIVABLE: dict[Kind, type[TeacherUnavailableError]] = {
    Kind.CONTEXT: TeacherContextError,
    Kind.REJECTED: TeacherRejectedError,
}
"""Failures that a run can go on after, with a shorter prompt or without tools; each with its error."""

_TEXT_FOR_AN_ANSWER = re.compile(r"^'str' object (has no|does not|is not|cannot)|^string indices must be")
"""What Python says where a client takes a page of HTML for an answer."""
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
    # What clients raise that take any answer with status 200 for one with a message in it.
    Kind.EMPTY: (json.JSONDecodeError, AttributeError, TypeError, LookupError, ValidationError),
}
_PASSING_TYPES = re.compile(r"(Timeout|(Connect|Connection|Timeout|Protocol|Read|Write|Close|Proxy|SSL)Error)$")
"""Names of classes: HTTP clients share no base class."""
_TIMEOUT_TYPES = re.compile("Timeout(Error)?$")
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
    status, code, name = status_of(error), _code(error), type(error).__name__
    said = f"{name} {code} {error}"
    behind = _said(error)
    for kind in Kind:
        if kind in (Kind.NOT_API, Kind.EMPTY) and (status is not None or code is not None):
            continue
        if (
            status in _STATUSES.get(kind, ())
            or isinstance(error, _CLASSES.get(kind, ()))
            or (kind is Kind.PASSING and _PASSING_TYPES.search(name))
            or (kind is Kind.NOT_SET_UP and status is None and re.search(NOT_SET_UP, behind))
            or (kind is Kind.NOT_API and _is_of_a_page(error))
            or any(re.search(provider.errors[kind], said) for provider in registered() if kind in provider.errors)
        ):
            return kind
    return Kind.REJECTED


def _is_of_a_page(error: BaseException) -> bool:
    """Whether a client took a page of HTML for an answer."""
    if isinstance(error, json.JSONDecodeError):
        return error.doc.lstrip().startswith("<")
    return isinstance(error, AttributeError | TypeError) and _TEXT_FOR_AN_ANSWER.search(str(error)) is not None


def may_be_billed(error: BaseException) -> bool:
    """Whether the provider may have worked on a call that failed: unless it was never sent, or an error came back.

    After a time-out of a server between there is an error too, while the model may have answered.
    """
    status = status_of(error)
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


def is_timeout(error: BaseException) -> bool:
    """Whether we gave up waiting, or the client did."""
    return any(isinstance(link, TimeoutError) or _TIMEOUT_TYPES.search(type(link).__name__) for link in _chain(error))


def unavailable(error: BaseException, spec: str, server: str = "") -> TeacherUnavailableError:
    """The error for the user: what failed, why, and what to do; without secrets.

    Args:
        spec: Of the teacher, `provider:model`.
        server: Its address, and perhaps more after a blank; empty where that is not known.
    """
    kind, server = classify(error), server.partition(" ")[0]
    provider = provider_named(provider_of(spec))
    keys = ", ".join(provider.key_variables) or "its key in the environment"
    name, what_to_do = _passing(error, server) if kind is Kind.PASSING else (kind.value, "")
    remedies = {
        Kind.AUTH: f"check {keys}, and that the account may use this model",
        Kind.QUOTA: "raise the quota or pay the account; repeating will not help",
        Kind.PASSING: what_to_do,
        Kind.NOT_SET_UP: advice(_said(error), server) or "check the address",
        Kind.NO_MODEL: "check the model's name, that the account and region have it, and the server's address",
        Kind.REFUSED: "look at the texts that are shown to it",
        Kind.NOT_API: "check `teacher.base_url`: it has to be the address of the API (often it ends in /v1)",
        Kind.EMPTY: "ask again, or try another model",
        Kind.CONTEXT: "show fewer rows (`evidence.few_shot=4`) or take a model with a larger "
        "context (of a local one: `teacher.context_tokens=8192`)",
        Kind.REJECTED: "check the model's name and the settings it is called with",
    }
    remedy = provider.advice.get(kind) or remedies[kind]
    if (seconds := retry_after(error)) is not None:
        remedy = f"the provider asks to wait {seconds:.0f} s; {remedy}"
    where = f" at {server}" if "://" in server and "@" not in server and status_of(error) in (None, 404) else ""
    return SURVIVABLE.get(kind, TeacherUnavailableError)(
        f"teacher {spec}{where}: {name} ({type(error).__name__}: {_text(error)}); {remedy}"
    )


def _passing(error: BaseException, server: str) -> tuple[str, str]:
    """What a passing failure is, and what may help where another try did not."""
    status = status_of(error)
    if status == 429 or (status is None and retry_after(error) is not None):
        return "rate limit", "ask more slowly (teacher.requests_per_minute, teacher.max_concurrency), and go on later"
    if status is not None:
        return "server error", "it has trouble of its own: go on later; the log of a server of your own says more"
    if is_timeout(error):
        return "no answer in time", "look whether the server works on something else, or raise teacher.timeout"
    how = advice(_said(error), server) or "check the network, the address and that the server runs, then start again"
    return "no connection", how


def _text(error: BaseException) -> str:
    """What the error says, and the one behind it all, in a line without secrets."""
    lines = [(str(link).splitlines() or [""])[0] for link in _chain(error)]
    said = ": ".join(dict.fromkeys(filter(None, (lines[0], lines[-1]))))
    return redacted(re.sub("(Illegal header value).*", r"\1", said))[:300]


_SECRET_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 8


def redacted(text: str) -> str:
    """`text` without values of environment variables that are named like secrets: servers echo keys in errors."""
    for name, value in sorted(os.environ.items(), key=lambda variable: -len(variable[1])):  # one may begin another
        if len(value.strip()) >= _SHORTEST_SECRET and _SECRET_NAMES.search(name):
            text = text.replace(value.strip(), f"[{name}]")
    return text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _said(error: BaseException) -> str:
    return "\n".join(f"{type(link).__name__}: {link}" for link in _chain(error))


def status_of(error: BaseException) -> int | None:
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
