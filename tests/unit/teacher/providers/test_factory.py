from __future__ import annotations

import pytest

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.providers.factory import build_teacher


@pytest.mark.parametrize("provider", ["openai", "local", "ollama", "no_such"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://planted@host/v1", "belong into the environment"),
        ("https://me:planted@host/v1", "belong into the environment"),
        ("https://:planted@host/v1", "belong into the environment"),
        ("https://host/v1?key=planted", "belong into the environment"),
        ("https://host/v1#planted", "belong into the environment"),
        ("https://me:planted@[::1/v1", "is no address; expected one like https://"),
        ("https://me:planted@host\uff03/v1", "is no address; expected one like https://"),  # Python's error quotes it
    ],
)
def test_an_address_that_may_hold_a_key_is_refused_without_being_repeated(
    provider: str, url: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_teacher(TeacherSettings(spec=f"{provider}:m", base_url=url), max_tokens=16)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "https://host/@team/v1", "http://[::1]:8000/v1/"])
def test_an_address_alone_is_taken(url: str) -> None:
    build_teacher(TeacherSettings(spec="openai:m", base_url=url), max_tokens=16)
