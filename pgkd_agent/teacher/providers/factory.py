"""From `provider:model` to a LangChain chat model."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel

from pgkd_agent import embedded
from pgkd_agent.config import TeacherSettings, provider_of
from pgkd_agent.errors import ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import Kind, classify, unavailable
from pgkd_agent.teacher.providers.dialect import CAPABILITIES, REPLY_LENGTH_FIELDS, Capabilities, Dialect

SERVER_VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    "azure_openai": ("AZURE_OPENAI_ENDPOINT",),
    "bedrock_converse": ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
    "anthropic": ("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"),
    "ollama": ("OLLAMA_HOST",),
}
"""Where the environment may name a server, by provider."""

NAME_FIELDS = ("deployment_name", "model_name", "model", "model_id")
ADDRESS_FIELDS = (
    "root_client.base_url",  # OpenAI and Azure
    "anthropic_api_url",
    "_client._client.base_url",  # Ollama
    "client.meta.endpoint_url",  # Bedrock
    "base_url",
    "endpoint_url",
)
"""Where LangChain's models keep what they call, and at which address."""

FREE_CHECK_SECONDS = 10.0
"""For finding out, without a call of the model, whether its server answers."""


@dataclass(frozen=True)
class ChatTeacher:
    """A chat model ready for calls.

    Attributes:
        server: All that tells this model from others of the same name: the address where it is asked, its file.
        close: Frees what the model holds (a local server).
        check_free: Finds out without a call whether server and key are right; None where nothing can.
    """

    model: BaseChatModel
    model_id: str
    dialect: Dialect = field(default_factory=lambda: Dialect(Capabilities()))
    server: str = ""
    close: Callable[[], None] = lambda: None
    check_free: Callable[[], None] | None = None


def build_teacher(settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """Build the chat model.

    Args:
        max_tokens: Longest reply, in tokens.
    Raises:
        ConfigError: No provider prefix, an unknown provider, or a local model that is not there.
        TeacherUnavailableError: A missing key.
    """
    provider, colon, name = settings.spec.partition(":")
    if not colon or not name:
        raise ConfigError(
            f"teacher {settings.spec!r}: expected provider:model, e.g. openai:gpt-4o-mini, local:smollm2, "
            "local:/path/model.gguf"
        )
    _refuse_credentials_in(settings.base_url)
    builders = {
        "local": _local,
        "openai": _openai,
        "azure_openai": _azure,
        "bedrock_converse": _bedrock,
        "anthropic": _anthropic,
        "ollama": _ollama,
    }
    chat = builders.get(provider, _any)(name, settings, max_tokens)
    return chat if chat.server else replace(chat, server=address_of(chat.model))


def server_of(settings: TeacherSettings) -> str:
    """The address of the teacher's server, where settings or environment name another than the provider's own."""
    variables = SERVER_VARIABLES.get(provider_of(settings.spec), ())
    named = (settings.base_url, *map(os.environ.get, variables))
    return "" if settings.is_local else next(filter(None, named), "")


def around(model: BaseChatModel) -> ChatTeacher:
    """A chat model of the caller's own, who knows whether it answers."""
    name = next(filter(None, (getattr(model, field, None) for field in NAME_FIELDS)), "")
    model_id = ":".join(filter(None, (type(model).__name__, str(name))))
    settings = json.dumps(model._identifying_params, sort_keys=True, default=str)
    return ChatTeacher(model, model_id, server=f"{address_of(model)} {settings}", check_free=lambda: None)


def address_of(model: BaseChatModel) -> str:
    """Where a model is asked, as its client has it; empty where that is not to be seen."""
    for path in ADDRESS_FIELDS:
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


def _dialect(provider: str, settings: TeacherSettings) -> Dialect:
    level = None if settings.structured == "auto" else settings.structured
    return Dialect(CAPABILITIES.get(provider, Capabilities()), level)


def _refuse_credentials_in(url: str | None) -> None:
    """Settings are written into the run directory."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        # Without the error's words, and without the error: it may quote the address with the password.
        raise ConfigError("teacher.base_url is no address; expected one like https://host:8000/v1") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "teacher.base_url holds a name, a password or parameters; keys and passwords belong into the environment"
        )


def _local(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from pgkd_agent.teacher.providers.local import LocalServer

    model_file = local_model_file(name)
    server = LocalServer(model_file, settings.context_tokens, settings.threads, settings.max_concurrency or 1)
    server.start()
    _bypass_proxies("127.0.0.1")
    model = _chat_openai(settings, max_tokens, model=model_file.stem, base_url=server.base_url, api_key="local")
    file = model_file.stat()
    return ChatTeacher(
        model,
        settings.spec,
        _dialect("local", settings),
        server=f"{model_file.resolve()} {file.st_size} {file.st_mtime_ns}",
        close=server.close,
        check_free=lambda: None,
    )


def _bypass_proxies(host: str) -> None:
    """Clients would ask a proxy of the environment even for loopback; both spellings of the variable are read."""
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), host]))


def local_model_file(name: str) -> Path:
    """The GGUF file of an embedded model's name, or of a path.

    Raises:
        ConfigError: The embedded model is not fetched, or there is no such file.
    """
    if name in embedded.MODELS:
        return embedded.require(name)
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"teacher local:{name}: no such file; embedded models: smollm2")
    return path


def _openai(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    key = os.environ.get("OPENAI_API_KEY")
    base_url = server_of(settings)
    if not key and not base_url:
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no key; set OPENAI_API_KEY, or name another server with --base-url"
        )
    model = _chat_openai(settings, max_tokens, model=name, base_url=base_url or None, api_key=key or "none")
    dialect = _dialect("openai-compatible" if base_url else "openai", settings)
    return ChatTeacher(model, settings.spec, dialect, check_free=lambda: _list_models(model, settings.spec))


def _chat_openai(settings: TeacherSettings, max_tokens: int, **kwargs: Any) -> BaseChatModel:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        temperature=settings.temperature,
        max_completion_tokens=max_tokens,
        timeout=settings.timeout,
        max_retries=0,
        use_responses_api=False,
        **kwargs,
    )


def _azure(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """A deployment on Azure OpenAI; `name` is the deployment's."""
    from langchain_openai import AzureChatOpenAI

    endpoint = server_of(settings)
    missing = [] if endpoint else ["AZURE_OPENAI_ENDPOINT (or --base-url)"]
    missing += [name for name in ("AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION") if not os.environ.get(name)]
    if missing:
        raise TeacherUnavailableError(f"teacher {settings.spec}: set {', '.join(missing)}")
    model = AzureChatOpenAI(
        azure_deployment=name,
        azure_endpoint=endpoint,
        temperature=settings.temperature,
        max_completion_tokens=max_tokens,
        timeout=settings.timeout,
        max_retries=0,
        use_responses_api=False,
    )
    return ChatTeacher(model, settings.spec, _dialect("azure_openai", settings))


def _bedrock(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """Amazon Bedrock through its Converse API; region and credentials come from the environment or AWS' own files."""
    import boto3
    from langchain_aws import ChatBedrockConverse

    session = boto3.Session()
    region = os.environ.get("AWS_REGION") or session.region_name  # boto3 itself only looks at AWS_DEFAULT_REGION
    if region is None:
        raise TeacherUnavailableError(f"teacher {settings.spec}: no AWS region; set AWS_REGION, e.g. us-east-1")
    if session.get_credentials() is None and not os.environ.get("AWS_BEARER_TOKEN_BEDROCK"):
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or AWS_BEARER_TOKEN_BEDROCK"
        )
    model = ChatBedrockConverse(
        model_id=name,
        region_name=region,
        temperature=settings.temperature,
        max_tokens=max_tokens,
        timeout=math.ceil(settings.timeout),
        max_retries=0,
        endpoint_url=settings.base_url,
    )
    return ChatTeacher(model, settings.spec, _dialect("bedrock_converse", settings))


def _anthropic(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    chat_anthropic = _class_of("langchain_anthropic", "ChatAnthropic", "anthropic", settings)
    if not os.environ.get("ANTHROPIC_API_KEY"):
        raise TeacherUnavailableError(f"teacher {settings.spec}: no key; set ANTHROPIC_API_KEY")
    model = chat_anthropic(
        model=name,
        temperature=settings.temperature,
        max_tokens=max_tokens,
        timeout=settings.timeout,
        max_retries=0,
        **({"base_url": settings.base_url} if settings.base_url else {}),
    )
    return ChatTeacher(model, settings.spec, _dialect("anthropic", settings))


def _ollama(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """A model that Ollama serves; the context is set, since its server's own may be short."""
    chat_ollama = _class_of("langchain_ollama", "ChatOllama", "ollama", settings)
    model = chat_ollama(
        model=name,
        temperature=settings.temperature,
        num_predict=max_tokens,
        num_ctx=settings.context_tokens,
        base_url=settings.base_url,
        client_kwargs={"timeout": settings.timeout},
        sync_client_kwargs={"event_hooks": {"request": [_refuse_to_cut]}},
    )
    dialect = _dialect("ollama", settings)
    return ChatTeacher(model, settings.spec, dialect, check_free=lambda: _show_model(name, settings))


def _refuse_to_cut(request: Any) -> None:
    """Ollama drops the beginning of a prompt beyond the context and answers the rest, unless it is told not to."""
    from httpx import ByteStream

    if request.method != "POST":  # after a redirect
        return
    body = json.dumps({**json.loads(request.read()), "truncate": False, "shift": False}).encode()
    request.stream = ByteStream(body)
    request.headers["Content-Length"] = str(len(body))


def _class_of(module: str, name: str, extra: str, settings: TeacherSettings) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"teacher {settings.spec} needs {module} ({error}): run `pip install 'pgkd-agent[{extra}]'`"
        ) from error


def _any(_name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """Any other provider that LangChain knows."""
    from langchain.chat_models import init_chat_model

    given = {"temperature": settings.temperature, "base_url": settings.base_url}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        model = init_chat_model(settings.spec, max_tokens=max_tokens, **kwargs)
        known = {name for field, info in type(model).model_fields.items() for name in (field, info.alias)}
        kwargs |= {key: value for key, value in (("timeout", settings.timeout), ("max_retries", 0)) if key in known}
        model = init_chat_model(settings.spec, max_tokens=max_tokens, **kwargs)  # with what its class takes
    except ImportError as error:
        raise ConfigError(f"teacher {settings.spec}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"teacher {settings.spec}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # each provider has its own way to say that credentials are missing
        raise unavailable(error, f"teacher {settings.spec}") from error
    return ChatTeacher(model, settings.spec, _dialect(provider_of(settings.spec), settings))


def _list_models(model: Any, spec: str) -> None:
    """Ask for the server's models, which costs nothing; only connection and key failures count."""
    try:
        model.root_client.with_options(timeout=FREE_CHECK_SECONDS).models.list()
    except Exception as error:
        name = type(error).__name__
        if classify(error) is Kind.AUTH or name in ("APIConnectionError", "APITimeoutError"):
            raise unavailable(error, f"teacher {spec}") from error


def _show_model(name: str, settings: TeacherSettings) -> None:
    """Ask Ollama about the model, which does not load it; only connection, key and a missing model count."""
    from ollama import Client

    with Client(settings.base_url, timeout=FREE_CHECK_SECONDS) as client:
        try:
            client.show(name)
        except Exception as error:
            if classify(error) in (Kind.AUTH, Kind.NO_MODEL, Kind.PASSING):
                raise unavailable(error, f"teacher {settings.spec}") from error
