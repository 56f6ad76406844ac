"""Which providers there are, and what they say of errors."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import classify, may_be_billed
from pgkd_agent.teacher.providers import ChatTeacher, Kind, Provider, register, registry
from pgkd_agent.teacher.providers.factory import build_teacher, server_of
from pgkd_agent.teacher.providers.registry import BUILT_IN, provider_named, registered
from pgkd_agent.testing import ScriptedChatModel


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry as of a new process, before and after."""
    monkeypatch.setattr(registry, "_providers", {})
    registry._load.cache_clear()
    yield
    registry._load.cache_clear()


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    return ChatTeacher(ScriptedChatModel([name, str(max_tokens)]), settings.spec)


def test_every_file_with_a_provider_is_known() -> None:
    folder = Path(registry.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nPROVIDER = " in path.read_text(encoding="utf-8")}
    assert files == {*BUILT_IN, "other"}
    names = [provider.name for provider in registered()]
    assert sorted(names) == ["", "anthropic", "azure_openai", "bedrock_converse", "local", "ollama", "openai"]
    assert names[-1] == "" and provider_named("mistralai").name == ""


def test_to_know_all_providers_costs_none_of_their_libraries() -> None:
    heavy = ["torch", "boto3", "openai", "anthropic", "ollama", "xllamacpp", "langchain", "langchain_openai"]
    heavy += ["langchain_aws", "langchain_anthropic", "langchain_ollama", "transformers"]
    code = f"""
import sys
from pgkd_agent.teacher.calls.failures import classify
classify(ValueError("bad"))
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_expression_can_be_compiled() -> None:
    for provider in registered():
        for expression in (*provider.errors.values(), provider.unsent):
            re.compile(expression)


def test_one_that_is_registered_goes_before_one_of_the_package() -> None:
    assert provider_named("openai").build is not build
    register(Provider("openai", build))
    assert provider_named("openai").build is build
    chat = build_teacher(TeacherSettings(spec="openai:m:7b"), 16)
    assert [chat.model.invoke("x").text, chat.model.invoke("x").text] == ["m:7b", "16"]


def test_one_that_is_registered_first_is_not_replaced_when_the_others_are_loaded() -> None:
    register(Provider("ollama", build))
    assert provider_named("ollama").build is build


def test_what_a_provider_says_of_errors_holds_for_them_alone() -> None:
    class PurseError(Exception):
        pass

    class OutOfPostageError(Exception):
        pass

    assert classify(PurseError("no")) is Kind.REJECTED and may_be_billed(OutOfPostageError())
    register(Provider("mine", build, errors={Kind.QUOTA: "PurseError|purse is empty"}, unsent="OutOfPostageError"))
    assert classify(PurseError("no")) is Kind.QUOTA and may_be_billed(PurseError())
    assert classify(ValueError("Your purse is empty.")) is Kind.QUOTA
    assert classify(ValueError("The purse is full.")) is Kind.REJECTED
    assert not may_be_billed(OutOfPostageError())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    register(Provider("mine", build, module="no_such_module", install="mine-sdk"))
    with pytest.raises(ConfigError, match=r"mine:m needs no_such_module \(.*\): run `pip install 'mine-sdk'`"):
        build_teacher(TeacherSettings(spec="mine:m"), 16)
    monkeypatch.setenv("MINE_ACCOUNT", "a")
    register(Provider("mine", build, keys=("MINE_ACCOUNT", "MINE_KEY", "MINE_REGION")))
    with pytest.raises(TeacherUnavailableError, match=r"mine:m: set MINE_KEY, MINE_REGION$"):
        build_teacher(TeacherSettings(spec="mine:m"), 16)


def test_a_server_is_named_by_the_settings_or_else_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    register(Provider("mine", build, server_variables=("MINE_URL", "MINE_HOST")))
    assert server_of(TeacherSettings(spec="mine:m")) == ""
    monkeypatch.setenv("MINE_HOST", "http://b")
    assert server_of(TeacherSettings(spec="mine:m")) == "http://b"
    monkeypatch.setenv("MINE_URL", "http://a")
    assert server_of(TeacherSettings(spec="mine:m")) == "http://a"
    assert server_of(TeacherSettings(spec="mine:m", base_url="http://c")) == "http://c"
    assert server_of(TeacherSettings(spec="other:m")) == ""


def test_an_installed_package_may_announce_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    announced = tmp_path / "shop-1.0.dist-info"
    announced.mkdir()
    (announced / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n", encoding="utf-8")
    points = "[pgkd_agent.providers]\nshop = shop_llm:PROVIDER\ngone = shop_gone:PROVIDER\n"
    (announced / "entry_points.txt").write_text(points, encoding="utf-8")
    source = "from pgkd_agent.teacher.providers import Provider\nPROVIDER = Provider('shop', print)\n"
    (tmp_path / "shop_llm.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert provider_named("shop").build is print
    assert "the provider gone of shop_gone:PROVIDER cannot be loaded: No module named 'shop_gone'" in caplog.text
