"""From `provider:model` to a LangChain chat model with its capabilities."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel

from pgkd_agent import embedded
from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.failures import Kind, call_with_retries, classify, unavailable

Structured = Literal["json_schema", "text"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider takes in a call.

    Attributes:
        structured: `json_schema`: OpenAI's `response_format`; `text`: nothing, the prompt says it.
        seed: Whether sampling can be seeded.
        array_bounds: Whether the schema may fix the number of samples.
        max_tokens_field: The server reads `max_tokens` only, not `max_completion_tokens`.
        prefix_cache: llama.cpp's `cache_prompt`: what begins like the call before is not read again.
    """

    structured: Structured = "text"
    seed: bool = False
    array_bounds: bool = False
    max_tokens_field: bool = False
    prefix_cache: bool = False


CAPABILITIES = {
    "local": Capabilities("json_schema", seed=True, array_bounds=True, max_tokens_field=True, prefix_cache=True),
    "openai": Capabilities("json_schema", seed=True),
    "openai-compatible": Capabilities("json_schema", seed=True, max_tokens_field=True),
}
"""By provider; any other: `Capabilities()`."""


@dataclass(frozen=True)
class ChatTeacher:
    """A chat model ready for calls; `close` frees what it holds (a local server)."""

    model: BaseChatModel
    model_id: str
    capabilities: Capabilities = Capabilities()
    close: Callable[[], None] = lambda: None


def build_teacher(settings: TeacherSettings, max_tokens: int, check: bool = True) -> ChatTeacher:
    """Build the chat model, and find out now whether it can be reached: `openai` and `local` without a call, any
    other provider with one of a few tokens.

    Args:
        max_tokens: Longest reply, in tokens.
        check: Whether to find out; False where it may be that no call is needed.
    Raises:
        ConfigError: No provider prefix, an unknown provider, or a local model that is not there.
        TeacherUnavailableError: A missing key, or a server that cannot be reached or refuses the key.
    """
    provider, colon, name = settings.spec.partition(":")
    if not colon or not name:
        raise ConfigError(
            f"teacher {settings.spec!r}: expected provider:model, e.g. openai:gpt-4o-mini, local:smollm2, "
            "local:/path/model.gguf"
        )
    if provider == "local":
        return _local(name, settings, max_tokens)
    if provider == "openai":
        return _openai(name, settings, max_tokens, check)
    teacher = _bedrock(name, settings, max_tokens) if provider == "bedrock_converse" else _any(settings, max_tokens)
    if check:
        _check_answers(teacher.model, settings)
    return teacher


def _local(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from pgkd_agent.teacher.local import LocalServer

    model_file = local_model_file(name)
    server = LocalServer(model_file, settings.context_tokens, settings.threads)
    server.start()
    _bypass_proxies("127.0.0.1")
    model = _chat_openai(settings, max_tokens, model=model_file.stem, base_url=server.base_url, api_key="local")
    return ChatTeacher(model, settings.spec, _chosen("local", settings), server.close)


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


def _openai(name: str, settings: TeacherSettings, max_tokens: int, check: bool) -> ChatTeacher:
    key = os.environ.get("OPENAI_API_KEY")
    base_url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
    if not key and not base_url:
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no key; set OPENAI_API_KEY, or name another server with --base-url"
        )
    model = _chat_openai(settings, max_tokens, model=name, base_url=base_url, api_key=key or "none")
    teacher = ChatTeacher(model, settings.spec, _chosen("openai-compatible" if base_url else "openai", settings))
    if check:
        _check_reachable(model, settings.spec)
    return teacher


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


def _bedrock(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """Amazon Bedrock through its Converse API; region and credentials come from the environment or AWS' own files."""
    import boto3
    from langchain_aws import ChatBedrockConverse

    session = boto3.Session()
    region = session.region_name
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
    return ChatTeacher(model, settings.spec, _chosen("bedrock_converse", settings))


def _any(settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain.chat_models import init_chat_model

    given = {"temperature": settings.temperature, "base_url": settings.base_url}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        model = init_chat_model(settings.spec, max_tokens=max_tokens, **kwargs)
    except ImportError as error:
        raise ConfigError(f"teacher {settings.spec}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"teacher {settings.spec}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # each provider has its own way to say that credentials are missing
        raise unavailable(error, f"teacher {settings.spec}") from error
    return ChatTeacher(model, settings.spec, _chosen(settings.spec.partition(":")[0], settings))


def _chosen(provider: str, settings: TeacherSettings) -> Capabilities:
    own = CAPABILITIES.get(provider, Capabilities())
    if settings.structured == "auto":
        return own
    return replace(own, structured=settings.structured)


def _check_answers(model: BaseChatModel, settings: TeacherSettings) -> None:
    """Ask for one word: there is no free way to learn that a key, a region and a model's name go together.

    Raises:
        TeacherUnavailableError: The provider refuses, or cannot be reached.
    """
    call_with_retries(
        lambda: model.invoke("Answer with the word ok."), settings.max_attempts, f"teacher {settings.spec}"
    )


def _check_reachable(model: Any, spec: str) -> None:
    """List the server's models, which costs nothing; only connection and key failures count."""
    try:
        model.root_client.with_options(timeout=10.0).models.list()
    except Exception as error:
        name = type(error).__name__
        if classify(error) is Kind.AUTH or name in ("APIConnectionError", "APITimeoutError"):
            raise unavailable(error, f"teacher {spec}") from error
