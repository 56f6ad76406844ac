"""A provider from outside the package: what one file holds (`MINE`), and whole distillations with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig, TeacherSettings
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.teacher.providers import Capabilities, ChatTeacher, Kind, Provider, register, registry
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import sentences, tiny_config
from tests.integration.test_distill import FIRST, SECOND

TRAIN, VALIDATION = sentences(12, 0), sentences(5, 1)
MODELS: dict[str, ScriptedChatModel] = {}


class PostOfficeError(Exception):
    """Without a status."""


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    return ChatTeacher(MODELS[name], settings.spec)


MINE = Provider(
    "mine",
    build,
    Capabilities(("json_schema", "text"), seed="call"),
    keys=("MINE_KEY",),
    errors={Kind.QUOTA: "purse is empty", Kind.PASSING: "PostOfficeError"},
)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.registered()  # loads those of the package, also for the tests after this one
    monkeypatch.setattr(registry, "_providers", dict(registry._providers))
    monkeypatch.setattr("pgkd_agent.teacher.calls.calling.Caller.sleep", lambda _self, _seconds: None)
    monkeypatch.setenv("MINE_KEY", "k")
    register(MINE)


def mine(student: Path, *replies: Any) -> tuple[PGKDConfig, ScriptedChatModel]:
    MODELS["model"] = ScriptedChatModel(replies)
    return tiny_config(student, **{"teacher.spec": "mine:model", "teacher.structured": "auto"}), MODELS["model"]


def test_a_whole_distillation(tiny_student: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, model = mine(tiny_student, "ok", PostOfficeError("closed"), FIRST, SECOND)
    result = distill(TRAIN, VALIDATION, config=config)
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    _check, *asked = model.settings
    assert len(asked) == 3 and "trying again" in caplog.text
    forms = [settings["extra_body"]["response_format"]["type"] for settings in asked]
    assert forms == ["json_schema"] * 3 and len({settings["seed"] for settings in asked}) == 2


def test_a_form_that_it_refuses_gives_way_to_the_next(tiny_student: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, model = mine(tiny_student, "ok", ValueError("response_format is not known here"), FIRST, SECOND)
    result = distill(TRAIN, VALIDATION, config=config)
    assert [step.accepted for step in result.training.steps] == [0, 2, 2]
    assert ["extra_body" in settings for settings in model.settings] == [False, True, False, False]
    assert "does not take answers as json_schema; asking as text from now on" in caplog.text


def test_its_own_errors_are_told_as_it_says(tiny_student: Path) -> None:
    config, model = mine(tiny_student, RuntimeError("Your purse is empty."))
    with pytest.raises(TeacherUnavailableError, match=r"mine:model: quota used up \(RuntimeError: Your purse is empty"):
        distill(TRAIN, VALIDATION, config=config)
    assert len(model.prompts) == 1


def test_a_key_that_is_not_set_is_named(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINE_KEY")
    with pytest.raises(TeacherUnavailableError, match="mine:model: set MINE_KEY"):
        distill(TRAIN, VALIDATION, config=mine(tiny_student)[0])
