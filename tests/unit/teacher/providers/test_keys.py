"""Keys as they come from files and shells."""

from __future__ import annotations

import os

import pytest

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.providers.factory import build_teacher

OTHERS = {"AWS_REGION": "us-east-1", "OPENAI_API_VERSION": "1", "AZURE_OPENAI_ENDPOINT": "https://host"}
VARIABLES = [
    ("openai:m", "OPENAI_API_KEY"),
    ("azure_openai:m", "AZURE_OPENAI_API_KEY"),
    ("anthropic:m", "ANTHROPIC_API_KEY"),
    ("bedrock_converse:m", "AWS_SECRET_ACCESS_KEY"),
    ("bedrock_converse:m", "AWS_BEARER_TOKEN_BEDROCK"),
    ("ollama:m", "OLLAMA_API_KEY"),
]


@pytest.fixture(autouse=True)
def other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-tests")


@pytest.mark.parametrize(("spec", "name"), VARIABLES)
@pytest.mark.parametrize("around", ["{}\r\n", " {}\t", "\n{}"])
def test_white_space_around_a_key_is_taken_off(
    spec: str, name: str, around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, around.format("sk-planted"))
    build_teacher(TeacherSettings(spec=spec), 64).close()
    assert os.environ[name] == "sk-planted"


@pytest.mark.parametrize(("spec", "name"), VARIABLES)
@pytest.mark.parametrize("around", ['"{}"', "'{}'", "Bearer {}", "\ufeff{}", "{}é", "{}\n{}"])
def test_what_is_no_key_is_refused_by_the_name_of_its_variable(
    spec: str, name: str, around: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, around.format("sk-planted", "x"))
    with pytest.raises(TeacherUnavailableError, match=f"{name} holds a character that is in no key") as caught:
        build_teacher(TeacherSettings(spec=spec), 64)
    assert "planted" not in str(caught.value)


def test_a_key_of_blanks_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", " \n")
    with pytest.raises(TeacherUnavailableError, match="set ANTHROPIC_API_KEY"):
        build_teacher(TeacherSettings(spec="anthropic:m"), 64)
