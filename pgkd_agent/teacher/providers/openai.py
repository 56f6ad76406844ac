"""OpenAI, and every server that speaks its protocol (vLLM, llama.cpp, gateways), named by its address."""

import os
from functools import partial
from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import classify, unavailable
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher, Kind, Provider

CAPABILITIES = Capabilities(("json_schema", "json_object", "tool", "text"), seed="call")


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain_openai import ChatOpenAI

    key = os.environ.get("OPENAI_API_KEY")
    base_url = PROVIDER.server_of(settings)
    if not key and not base_url:
        raise TeacherUnavailableError(
            f"teacher {settings.spec}: no key; set OPENAI_API_KEY, or name another server with `teacher.base_url`"
        )
    model = ChatOpenAI(model=name, base_url=base_url or None, api_key=key or "none", **one_try(settings, max_tokens))
    return ChatTeacher(model, settings.spec, check_free=partial(_list_models, model, settings.spec))


def one_try(settings: TeacherSettings, max_tokens: int) -> dict[str, Any]:
    """Fields of LangChain's clients of this protocol."""
    return {
        "temperature": settings.temperature,
        "max_completion_tokens": max_tokens,
        "timeout": settings.timeout,
        "max_retries": 0,
        "use_responses_api": False,
    }


def _list_models(model: Any, spec: str) -> None:
    """Ask for the server's models, which costs nothing; only connection and key failures count."""
    try:
        model.root_client.with_options(timeout=FREE_CHECK_SECONDS).models.list()
    except Exception as error:
        if classify(error) is Kind.AUTH or type(error).__name__ in ("APIConnectionError", "APITimeoutError"):
            raise unavailable(error, f"teacher {spec}") from error


PROVIDER = Provider(
    "openai",
    build,
    CAPABILITIES,
    elsewhere=Capabilities(("json_schema", "json_object", "text"), seed="call", max_tokens_field=True),
    server_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
    address_fields=("root_client.base_url",),
    errors={
        Kind.QUOTA: "insufficient_quota|billing_not_active",
        Kind.NO_MODEL: "model_not_found",
        Kind.CONTEXT: "context_length_exceeded|maximum context length",  # the second is vLLM's too
        Kind.REFUSED: "content_filter|content_policy_violation|OpenAIRefusalError|ContentFilterFinishReasonError",
        Kind.NOT_API: "Unexpected response type",  # LangChain's
    },
)
