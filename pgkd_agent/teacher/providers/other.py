"""Any other provider that LangChain's `init_chat_model` knows."""

from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.calls.failures import unavailable
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider


def build(_name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    """The model as LangChain builds it; time-out and number of tries where its class takes them."""
    from langchain.chat_models import init_chat_model

    given = {"temperature": settings.temperature, "base_url": settings.base_url}
    kwargs: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    try:
        model = init_chat_model(settings.spec, max_tokens=max_tokens, **kwargs)
        known = {name for field, info in type(model).model_fields.items() for name in (field, info.alias)}
        kwargs |= {key: value for key, value in (("timeout", settings.timeout), ("max_retries", 0)) if key in known}
        model = init_chat_model(settings.spec, max_tokens=max_tokens, **kwargs)
    except ImportError as error:
        raise ConfigError(f"teacher {settings.spec}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"teacher {settings.spec}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # each provider has its own way to say that credentials are missing
        raise unavailable(error, f"teacher {settings.spec}") from error
    return ChatTeacher(model, settings.spec)


PROVIDER = Provider(
    "",
    build,
    address_fields=("base_url", "endpoint_url"),
    # Google's, the first with status 400
    errors={Kind.AUTH: "API key not valid", Kind.CONTEXT: "exceeds the maximum number of tokens"},
)
