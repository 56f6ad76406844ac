"""Any other provider that LangChain's `init_chat_model` knows."""

from difflib import get_close_matches
from functools import partial
from typing import Any

from pgkd_agent.config import TeacherSettings, provider_of
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider
from pgkd_agent.teacher.providers.registry import registered


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """The model as LangChain builds it; time-out and number of tries where its class takes them."""
    from langchain.chat_models import init_chat_model

    given = {"temperature": settings.temperature, "base_url": settings.base_url}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    build_it = partial(init_chat_model, name, model_provider=provider_of(settings.spec))
    try:
        model = build_it(max_tokens=max_tokens, **kwargs)
        known = {name for field, info in type(model).model_fields.items() for name in (field, info.alias)}
        kwargs |= {key: value for key, value in (("timeout", settings.timeout), ("max_retries", 0)) if key in known}
        model = build_it(max_tokens=max_tokens, **kwargs)
        getattr(model, "_client", None)  # some build theirs for the first call, and what is wrong would show then
    except ImportError as error:
        if not isinstance(error.__cause__, ImportError):  # not LangChain's, about a package of its own
            raise
        raise ConfigError(f"teacher {settings.spec}: {error}") from error
    except ValueError as error:
        names = str(error).partition("providers are: ")[2]
        if not names:
            raise
        raise ConfigError(f"teacher {settings.spec}: {_unknown(provider_of(settings.spec), names)}") from error
    return ChatTeacher(model, settings.spec)


def _unknown(name: str, known: str) -> str:
    """
    Args:
        known: Those that LangChain has, with commas between.
    """
    ours = [provider.name for provider in registered() if provider.name]
    close = get_close_matches(name, {*ours, *known.split(", ")}, n=3)
    hint = f"closest: {', '.join(close)}" if close else f"e.g. {', '.join(ours)}"
    return f"there is no provider {name!r} ({hint}); the package of another has to be installed"


PROVIDER = Provider(
    "",
    build,
    address_fields=("base_url", "endpoint_url"),
    # Google's, the first with status 400
    errors={Kind.AUTH: "API key not valid", Kind.CONTEXT: "exceeds the maximum number of tokens"},
)
