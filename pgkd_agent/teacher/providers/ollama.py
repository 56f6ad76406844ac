"""Models that Ollama serves."""

import json
from functools import partial
from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.teacher.calls.failures import classify, unavailable
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher, Kind, Provider


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """The context is set, since the server's own may be short."""
    from langchain_ollama import ChatOllama

    model = ChatOllama(
        model=name,
        temperature=settings.temperature,
        num_predict=max_tokens,
        num_ctx=settings.context_tokens,
        base_url=settings.base_url,
        client_kwargs={"timeout": settings.timeout},
        sync_client_kwargs={"event_hooks": {"request": [_refuse_to_cut]}},
    )
    return ChatTeacher(model, settings.spec, check_free=partial(_show_model, name, settings))


def _refuse_to_cut(request: Any) -> None:
    """Ollama drops the beginning of a prompt beyond the context and answers the rest, unless it is told not to."""
    from httpx import ByteStream

    if request.method != "POST":  # after a redirect
        return
    body = json.dumps({**json.loads(request.read()), "truncate": False, "shift": False}).encode()
    request.stream = ByteStream(body)
    request.headers["Content-Length"] = str(len(body))


def _show_model(name: str, settings: TeacherSettings) -> None:
    """Ask about the model, which does not load it; only connection, key and a missing model count."""
    from ollama import Client

    with Client(settings.base_url, timeout=FREE_CHECK_SECONDS) as client:
        try:
            client.show(name)
        except Exception as error:
            if classify(error) in (Kind.AUTH, Kind.NO_MODEL, Kind.PASSING):
                raise unavailable(error, f"teacher {settings.spec}") from error


PROVIDER = Provider(
    "ollama",
    build,
    Capabilities(("json_schema", "json_object", "text"), seed="field", response_format="call", array_bounds=True),
    module="langchain_ollama",
    install="pgkd-agent[ollama]",
    server_variables=("OLLAMA_HOST",),
    address_fields=("_client._client.base_url",),
    errors={Kind.CONTEXT: "longer than the context length"},
)
