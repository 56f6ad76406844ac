"""`pgkd doctor` over real providers' clients and a real student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pgkd_agent.cli.main import app
from tests.integration.conftest import sentences
from tests.integration.loopback import Answer, Request, serve_json
from tests.integration.openai_server import completion, serve


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


@pytest.mark.parametrize(
    "elsewhere", [Answer(404, {"detail": "Not Found"}), Answer(200, b"<html>", {"Content-Type": "text/html"})]
)
def test_an_address_without_v1_is_found_before_the_first_fit(
    elsewhere: Answer, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgkd_agent.student.student.fit", lambda *_args, **_kwargs: pytest.fail("trained"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"text": row.text, "label": row.label}) for row in sentences(5, 0)))
    models = Answer(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
    with serve_json(lambda request: models if request.path == "/v1/models" else elsewhere) as address:
        args = ("--student", str(tiny_student), "--teacher", "openai:m", "--base-url", address)
        ended = [doctor(*args), CliRunner().invoke(app, ["distill", "--train", str(rows), *args])]
        right = doctor(*args[:-1], f"{address}/v1")
        absent = doctor("--student", str(tiny_student), "--teacher", "openai:x", "--base-url", f"{address}/v1")
    words = f"no API at {address}, but there is one at {address}/v1"
    assert ended[0].exit_code == 2 and words in " ".join(ended[0].output.split())
    assert words in str(ended[1].exception)
    assert right.exit_code == 0
    assert absent.exit_code == 3  # it is not in the list, and a call of one word fails


def test_a_server_without_a_list_of_models_is_asked_for_a_word(tiny_student: Path) -> None:
    def answer(request: Request) -> Answer:
        return completion("ok") if request.path == "/v1/chat/completions" else Answer(404, {})

    with serve_json(answer) as address:
        args = ("--student", str(tiny_student), "--teacher", "openai:m", "--base-url")
        assert doctor(*args, f"{address}/v1").exit_code == 0
        assert doctor(*args, f"{address}/v2").exit_code == 3


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:9"},
        {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "10.0.0.0/8"},
        {"HTTP_PROXY": "http://127.0.0.1:9"},
    ],
)
def test_a_server_on_this_machine_is_asked_without_a_proxy(
    variables: dict[str, str], tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serve(_never_asked) as server:
        for host in ("127.0.0.1", "localhost"):
            address = server.base_url.replace("127.0.0.1", host)
            result = doctor("--student", str(tiny_student), "--teacher", "openai:m", "--base-url", address)
            assert result.exit_code == 0, result.output


def test_everything_is_looked_at_though_the_student_is_missing() -> None:
    with serve(_never_asked) as server:
        result = doctor("--student", "./nowhere", "--teacher", "openai:x", "--base-url", server.base_url, "--json")
    found = findings(result)
    assert result.exit_code == 2 and "no such folder" in found["student"]["problem"]
    assert not found["teacher openai:x"]["problem"]
