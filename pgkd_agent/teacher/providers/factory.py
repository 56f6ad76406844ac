"""From `provider:model`, or from a model of the caller's own, to a chat model ready for calls."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib import import_module
from typing import Any

from langchain_core.language_models import BaseChatModel

from pgkd_agent.config import TeacherSettings, provider_of
from pgkd_agent.errors import ConfigError, PGKDError, TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import redacted, unavailable
from pgkd_agent.teacher.providers.connection import THIS_MACHINE, check_address, misleading, straight
from pgkd_agent.teacher.providers.dialect import REPLY_LENGTH_FIELDS, Dialect
from pgkd_agent.teacher.providers.keys import tidy_keys
from pgkd_agent.teacher.providers.provider import ChatTeacher, Provider
from pgkd_agent.teacher.providers.registry import provider_named, registered

NAME_FIELDS = ("deployment_name", "model_name", "model", "model_id")
"""Where LangChain's models keep what they call."""


def build_teacher(settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """Build the chat model.

    Args:
        max_tokens: Longest reply, in tokens.
    Raises:
        ConfigError: No provider prefix, an unknown provider, a package or a local model that is not there, batch jobs
            of a provider that has none.
        TeacherUnavailableError: A missing key.
    """
    prefix, colon, name = settings.spec.partition(":")
    if not colon or not name:
        raise ConfigError(
            f"teacher {settings.spec!r}: expected provider:model, e.g. openai:gpt-4o-mini, local:smollm2, "
            "local:/path/model.gguf"
        )
    check_address(settings.base_url)
    provider = provider_named(prefix)
    if settings.batch and provider.jobs is None:
        having = ", ".join(sorted(other.name for other in registered() if other.jobs))
        raise ConfigError(
            f"teacher {settings.spec}: `teacher.batch` asks by batch jobs of the provider, which are known here of "
            f"{having} alone; leave it out, or take a teacher of one of these"
        )
    _require(provider, settings)
    with straight(provider.server_of(settings) or provider.own_server):
        chat = _built(provider, name, settings, max_tokens)
    can = provider.elsewhere if provider.elsewhere and provider.server_of(settings) else provider.capabilities
    dialect = Dialect(can, settings.structured)
    jobs = provider.jobs(chat.model) if settings.batch and provider.jobs else None
    return replace(chat, dialect=dialect, server=chat.server or address_of(chat.model), jobs=jobs)


def _require(provider: Provider, settings: TeacherSettings) -> None:
    try:
        if provider.module:
            with straight(THIS_MACHINE):  # some build a client already when they are imported, which nobody asks
                import_module(provider.module)
    except ImportError as error:
        raise ConfigError(
            f"teacher {settings.spec} needs {provider.module} ({error}): run `pip install '{provider.install}'`"
        ) from error
    tidy_keys(provider.key_variables, settings.spec)
    if missing := [name for name in provider.keys if not os.environ.get(name)]:
        raise TeacherUnavailableError(f"teacher {settings.spec}: set {', '.join(missing)}")


def _built(provider: Provider, name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    try:
        return provider.build(name, settings, max_tokens)
    except PGKDError:
        raise
    except Exception as error:
        reason = misleading(error)  # clients read more of the environment than they make use of
        if not reason and not isinstance(error, ImportError | ValueError):
            raise unavailable(error, settings.spec) from error  # each has its own way to say that keys are missing
        said = redacted((str(error).splitlines() or [""])[0])
        raise ConfigError(
            f"teacher {settings.spec}: no client can be built ({type(error).__name__}: {said}); "
            f"{reason or 'check its settings'}"
        ) from error


def server_of(settings: TeacherSettings) -> str:
    """The address of the teacher's server, where settings or environment name another than the provider's own."""
    return "" if settings.is_local else provider_named(provider_of(settings.spec)).server_of(settings)


def around(model: BaseChatModel) -> ChatTeacher:
    """A chat model of the caller's own, who knows whether it answers.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(model, BaseChatModel):
        raise ConfigError(
            f"the teacher is a {type(model).__name__}; expected a spec such as openai:NAME, a LangChain chat model, "
            "or an object with write(request)"
        )
    name = next(filter(None, (getattr(model, field, None) for field in NAME_FIELDS)), "")
    model_id = ":".join(filter(None, (type(model).__name__, str(name))))
    settings = json.dumps(model._identifying_params, sort_keys=True, default=str)
    return ChatTeacher(model, model_id, server=f"{address_of(model)} {settings}", check_free=lambda: None)


def address_of(model: BaseChatModel) -> str:
    """Where a model is asked, as its client has it; empty where that is not to be seen."""
    for path in (path for provider in registered() for path in provider.address_fields):
        place: Any = model
        for name in path.split("."):
            place = getattr(place, name, None)
        if place:
            return str(place)
    return ""


def with_short_replies(chat: ChatTeacher, max_tokens: int) -> ChatTeacher:
    """The same model, with another limit for its replies where it has one."""
    model = chat.model
    lengths = {name: max_tokens for name in REPLY_LENGTH_FIELDS if getattr(model, name, None) is not None}
    return replace(chat, model=model.model_copy(update=lengths))
