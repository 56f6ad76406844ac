"""`pgkd doctor` over real providers' clients and a real student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pgkd_agent.cli.main import app
from tests.integration.loopback import Answer
from tests.integration.openai_server import serve


def _never_asked(_number: int, _body: dict[str, Any]) -> Answer:
    raise AssertionError("the list of models says enough: no call is made")


def doctor(*args: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *args])


def findings(result: Result) -> dict[str, dict[str, Any]]:
    return {finding["what"]: finding for finding in json.loads(result.stdout)}


def test_all_is_well(tiny_student: Path) -> None:
    with serve(_never_asked) as server:
        args = ("--student", str(tiny_student), "--teacher", "openai:some", "--base-url", server.base_url)
        shown, as_json = doctor(*args), doctor(*args, "--json")
    assert shown.exit_code == as_json.exit_code == 0, shown.output
    assert "ok  teacher openai:some: answers" in shown.output and "ok  student" in shown.output
    found = findings(as_json)
    assert {
        "versions",
        "disk",
        "extras",
        "embedded models",
        "device",
        "threads",
        "student",
        "teacher openai:some",
    } <= set(found)
    assert not any(finding["problem"] for name, finding in found.items() if name != "disk")


def test_a_missing_key_ends_with_the_code_of_a_run(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = doctor("--student", str(tiny_student), "--teacher", "openai:gpt-4o-mini")
    assert result.exit_code == 3 and "no  teacher openai:gpt-4o-mini" in result.output
    assert "OPENAI_API_KEY" in result.output


def test_a_server_that_is_not_there(tiny_student: Path) -> None:
    with serve(_never_asked) as server:
        gone = server.base_url
    result = doctor("--student", str(tiny_student), "--teacher", "openai:x", "--base-url", gone)
    assert result.exit_code == 3 and "no  teacher openai:x" in result.output


def test_everything_is_looked_at_though_the_student_is_missing() -> None:
    with serve(_never_asked) as server:
        result = doctor("--student", "./nowhere", "--teacher", "openai:x", "--base-url", server.base_url, "--json")
    found = findings(result)
    assert result.exit_code == 2 and "no such folder" in found["student"]["problem"]
    assert not found["teacher openai:x"]["problem"]
