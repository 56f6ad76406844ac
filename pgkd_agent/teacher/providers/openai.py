"""OpenAI, and every server that speaks its protocol (vLLM, llama.cpp, gateways), named by its address."""

import os
from contextlib import suppress
from functools import partial
from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import classify
from pgkd_agent.teacher.providers.completions import mending
from pgkd_agent.teacher.providers.connection import check_address
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.openai_batch import OpenAIBatches
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher, Kind, Provider

TOP_LOGPROBS = 20
"""As many as the protocol allows."""
CAPABILITIES = Capabilities(("json_schema", "json_object", "tool", "text"), seed="call", logprobs=TOP_LOGPROBS)


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain_openai import ChatOpenAI

    key = os.environ.get("OPENAI_API_KEY")
    base_url = PROVIDER.server_of(settings)
    check_address(base_url or None, in_protocol_of_openai=True)
    if not key and not base_url:
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no key; set OPENAI_API_KEY, or name another server with `teacher.base_url`"
        )
    model = mending(ChatOpenAI)(
        model=name, base_url=base_url or None, api_key=key or "none", **one_try(settings, max_tokens)
    )
    return ChatTeacher(model, settings.spec, check_free=partial(_is_listed, model, settings.spec))


def one_try(settings: TeacherSettings, max_tokens: int) -> dict[str, Any]:
    """Fields of LangChain's clients of this protocol."""
    return {
        "temperature": settings.temperature,
        "max_completion_tokens": max_tokens,
        "timeout": settings.timeout,
        "max_retries": 0,
        "use_responses_api": False,
    }


def _is_listed(model: Any, spec: str) -> bool:
    """Ask for the server's models, which costs nothing; False where that does not say whether this one answers.

    Raises:
        ConfigError: Not the address of an API, while that with or without `/v1` is.
        Exception: The client's, where connection or key fail.
    """
    client = model.root_client.with_options(timeout=FREE_CHECK_SECONDS)
    found = _models_at(client)
    if found is not None:
        return not found or model.model_name in found
    here = str(client.base_url).rstrip("/")
    there = here.removesuffix("/v1") if here.endswith("/v1") else f"{here}/v1"
    with suppress(Exception):
        found = _models_at(client.with_options(base_url=there))
    if found is not None:
        raise ConfigError(f"teacher {spec}: no API at {here}, but there is one at {there}: take that as base_url")
    return False


def _models_at(client: Any) -> list[str] | None:
    """Names of models; None where there is no list of them, but an error or a page for browsers."""
    try:
        models = client.models.list().data
    except Exception as error:
        kind = classify(error)
        if kind is Kind.AUTH or (getattr(error, "status_code", None) is None and kind is not Kind.NOT_API):
            raise
        return None
    return [model.id for model in models] if isinstance(models, list) else None


PROVIDER = Provider(
    "openai",
    build,
    CAPABILITIES,
    elsewhere=Capabilities(
        ("json_schema", "json_object", "text"), seed="call", max_tokens_field=True, logprobs=TOP_LOGPROBS
    ),
    more_keys=("OPENAI_API_KEY",),
    server_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    address_fields=("root_client.base_url",),
    errors={
        Kind.QUOTA: "insufficient_quota|billing_not_active",
        Kind.NO_MODEL: "model_not_found",
        Kind.CONTEXT: "context_length_exceeded|maximum context length",  # the second is vLLM's too
        Kind.REFUSED: "content_filter|content_policy_violation|OpenAIRefusalError|ContentFilterFinishReasonError",
        Kind.NOT_API: "Unexpected response type|missing 'choices' key",  # LangChain's
        Kind.EMPTY: "null value for 'choices'",  # LangChain's
    },
    jobs=OpenAIBatches,
)
