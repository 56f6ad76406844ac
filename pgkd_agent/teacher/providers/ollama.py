"""Models that Ollama serves."""

import json
from functools import partial
from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.teacher.calls.failures import classify
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher, Kind, Provider


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """The context is set, since the server's own may be short."""
    from langchain_ollama import ChatOllama
    from ollama import Client

    model = ChatOllama(
        model=name,
        temperature=settings.temperature,
        num_predict=max_tokens,
        num_ctx=settings.context_tokens,
        base_url=settings.base_url,
        client_kwargs={"timeout": settings.timeout},
        sync_client_kwargs={"event_hooks": {"request": [_refuse_to_cut]}},
    )
    client = Client(settings.base_url, timeout=FREE_CHECK_SECONDS)
    return ChatTeacher(model, settings.spec, close=client.close, check_free=partial(_show_model, client, name))


def _refuse_to_cut(request: Any) -> None:
    """Ollama drops the beginning of a prompt beyond the context and answers the rest, unless it is told not to."""
    from httpx import ByteStream

    if request.method != "POST":  # after a redirect
        return
    body = json.dumps({**json.loads(request.read()), "truncate": False, "shift": False}).encode()
    request.stream = ByteStream(body)
    request.headers["Content-Length"] = str(len(body))


def _show_model(client: Any, name: str) -> bool:
    """Ask about the model, which does not load it; False where the answer does not say whether it is there.

    Raises:
        Exception: The client's, where connection or key fail, or there is no such model.
    """
    try:
        client.show(name)
    except Exception as error:
        if classify(error) in (Kind.AUTH, Kind.NO_MODEL, Kind.NOT_SET_UP, Kind.PASSING):
            raise
        return False
    return True


PROVIDER = Provider(
    "ollama",
    build,
    Capabilities(("json_schema", "json_object", "text"), seed="field", response_format="call", array_bounds=True),
    module="langchain_ollama",
    install="pgkd-agent[ollama]",
    more_keys=("OLLAMA_API_KEY",),
    server_variables=("OLLAMA_HOST",),
    own_server="http://127.0.0.1:11434",
    address_fields=("_client._client.base_url",),
    errors={Kind.CONTEXT: "longer than the context length"},
    advice={
        Kind.NO_MODEL: "check the model's name: `ollama pull NAME` fetches it; the server's address is without /v1",
    },
)
