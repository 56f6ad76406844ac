"""`teacher.timeout` and `budget.max_minutes` bound a call of every provider, whatever its server sends meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.config import BudgetSettings, build_config
from pgkd_agent.errors import BudgetExceededError, TeacherError, TeacherUnavailableError
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.models import open_models
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.testing import ScriptedChatModel
from tests.integration import dripping_server
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import serve

KEYS = {
    "OPENAI_API_KEY": "sk-of-the-tests",
    "AZURE_OPENAI_API_KEY": "sk-of-the-tests",
    "OPENAI_API_VERSION": "2024-10-21",
    "ANTHROPIC_API_KEY": "sk-of-the-tests",
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_REGION": "us-east-1",
}
PROVIDERS = ("openai:m", "azure_openai:m", "anthropic:m", "bedrock_converse:m", "ollama:m")
AT_MOST = 20.0
"""Seconds, on a busy machine too; without a deadline, each of these calls goes on for good."""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for module in ("calling", "retrying"):  # what is tried again, and how often, is for others to test
        monkeypatch.setattr(f"pgkd_agent.teacher.calls.{module}.MAX_ATTEMPTS", 1)


def ask(spec: str, address: str, caps: BudgetSettings | None = None, **flags: Any) -> str:
    flags = {"teacher.spec": spec, "teacher.base_url": address, "teacher.timeout": 0.4, **flags}
    config = build_config(flags=flags)
    budget = Budget(caps or BudgetSettings(), load_prices())
    with open_models(None, [(config.teacher, 64)], 0, budget) as (model,):
        return str(model.invoke("Write.").text)


@pytest.mark.parametrize(
    ("spec", "sends"),
    [
        (spec, sends)
        for spec in PROVIDERS
        for sends in dripping_server.BEGINNINGS
        if (spec, sends) != ("ollama:m", "comments")  # its client reads line by line, and takes the first for an error
    ],
)
def test_a_call_ends_at_its_deadline(spec: str, sends: str) -> None:
    with dripping_server.serve(sends) as address:
        started = time.monotonic()
        with pytest.raises(TeacherUnavailableError, match=r"no answer in time .*teacher\.timeout"):
            ask(spec, f"{address}/v1" if spec == "openai:m" else address)
    assert time.monotonic() - started < AT_MOST


def test_the_end_of_the_run_s_time_is_the_deadline_of_a_call() -> None:
    with dripping_server.serve("blanks") as address, pytest.raises(BudgetExceededError, match="max_minutes"):
        ask("openai:m", f"{address}/v1", BudgetSettings(max_minutes=0.01), **{"teacher.timeout": 600})


def test_a_wait_beyond_the_run_s_time_is_not_begun() -> None:
    wait = Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "3600"})
    with serve(lambda _call, _body: wait) as server, pytest.raises(BudgetExceededError, match="max_minutes"):
        ask("openai:m", server.base_url, BudgetSettings(max_minutes=9), **{"teacher.timeout": 9})


@pytest.mark.parametrize("spec", ["openai:m", "ollama:m", "anthropic:m"])
def test_the_check_before_the_first_fit_has_a_deadline(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgkd_agent.teacher.calls.calling.FREE_CHECK_SECONDS", 0.4)
    with dripping_server.serve("blanks") as address:
        flags = {"teacher.spec": spec, "teacher.base_url": f"{address}/v1", "teacher.timeout": 0.4}
        config = build_config(flags=flags)
        budget = Budget(config.budget, load_prices())
        with (
            open_models(None, [(config.teacher, 64)], 0, budget) as (model,),
            pytest.raises(TeacherUnavailableError, match="no answer in time"),
        ):
            model.caller.check()


@pytest.mark.parametrize("mode", ["chain", "agent"])
def test_a_run_whose_teacher_hangs_ends_and_its_best_model_is_there(
    mode: str, tiny_student: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_student, **{"teacher.mode": mode, "teacher.timeout": 0.3})
    run = tmp_path / "run"
    ended = threading.Event()

    def hang(_messages: object) -> str:
        ended.wait(60)
        return ""

    with pytest.raises(TeacherError, match="no answer in time"):
        distill(sentences(12, 0), sentences(5, 1), config=config, teacher=ScriptedChatModel([hang]), out=run)
    ended.set()
    assert (run / "models" / "best").is_dir()
