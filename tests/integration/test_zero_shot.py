"""`pgkd evaluate --teacher`: a real client against a loopback server, answers kept as they come."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.errors import BudgetExceededError, ConfigError, TeacherUnavailableError
from pgkd_agent.experiments.zero_shot import ZeroShotResult, evaluate_zero_shot
from pgkd_agent.files import lock_beside
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.prompting.tokens import estimate_tokens
from pgkd_agent.types import Example, Label
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, failure, serve

TAXONOMY = (Label("fruit"), Label("garden tools", "what one digs with"), Label("weather"))
ROWS = [
    Example("an apple", "fruit"),
    Example("a spade", "garden tools"),
    Example("rain", "weather"),
    Example("a pear", "fruit"),
]
REPLIES = {
    "an apple": '{"class_label": 0, "class_names": "Fruit"}',
    "a spade": '"class_label": "garden_tools", "class_names": ""',
    "rain": '{"class_label": "snow"}',
    "a pear": "weather",
}


def config(server: OpenAIServer, **flags: Any) -> PGKDConfig:
    base = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "teacher.structured": "text"}
    return build_config(flags={**base, "teacher.max_concurrency": 2, **flags})


def asked(body: dict[str, Any]) -> str:
    prompt: str = body["messages"][0]["content"]
    return prompt.rpartition("Text-to-classifiy: ")[2]


def answer(_call: int, body: dict[str, Any]) -> Answer:
    return completion(REPLIES[asked(body)])


def evaluate(server: OpenAIServer, out: Path, **flags: Any) -> ZeroShotResult:
    return evaluate_zero_shot(ROWS, TAXONOMY, config(server, **flags), out)


def test_either_key_counts_and_an_unresolved_answer_is_wrong_and_reported(tmp_path: Path) -> None:
    with serve(answer) as server:
        result = evaluate(server, tmp_path / "answers.jsonl")
    assert result.unresolved == (3,)
    assert result.report.accuracy == 0.5 and result.report.n_rows == 4
    assert result.report.of("weather").recall == 0 and result.report.of("garden tools").f1 == 1
    assert result.usage.input_tokens == 400 and result.asked == 4
    assert {body["temperature"] for body in server.requests} == {0.0}
    prompt = server.requests[0]["messages"][0]["content"]
    assert "- garden tools: what one digs with" in prompt and "You are an AI assistant, and you are tasked" in prompt
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()][1:]
    assert {row["row"]: row["predicted"] for row in rows} == {1: "fruit", 2: "garden tools", 3: None, 4: "weather"}


def test_a_prompt_of_ones_own_comes_before_the_package(tmp_path: Path) -> None:
    (tmp_path / "zero_shot").mkdir()
    (tmp_path / "zero_shot" / "paper.j2").write_text(
        "My words for {{ taxonomy | length }} classes. Text-to-classifiy: {{ text }}", encoding="utf-8"
    )
    with serve(answer) as server:
        evaluate(server, tmp_path / "answers.jsonl", **{"teacher.prompt_folder": tmp_path})
    assert server.requests[0]["messages"][0]["content"].startswith("My words for 3 classes.")


def test_a_schema_goes_along_where_the_provider_takes_one(tmp_path: Path) -> None:
    with serve(answer) as server:
        evaluate(server, tmp_path / "answers.jsonl", **{"teacher.structured": "auto"})
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["class_label"]["enum"] == ["fruit", "garden tools", "weather"]


def test_a_stopped_evaluation_keeps_its_answers_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"

    def refuses_later(call: int, body: dict[str, Any]) -> Answer:
        return answer(call, body) if call != 2 else failure(401, "key revoked")

    with serve(refuses_later) as server:
        with pytest.raises(TeacherUnavailableError, match="credentials"):
            evaluate(server, out, **{"teacher.max_concurrency": 1})
        assert len(out.read_text().splitlines()) == 3
        with out.open("a") as file:
            file.write('{"row": 3, "predi')  # stopped within a line
        with serve(answer) as other, pytest.raises(ConfigError, match=r"\(different: seed, server, structured"):
            evaluate(other, out, **{"teacher.structured": "json_object", "seed": 5})
        result = evaluate(server, out)
    assert sorted(map(asked, server.requests[3:])) == ["a pear", "rain"]
    assert result.asked == 2 and result.unresolved == (3,) and result.report.n_rows == 4
    again = evaluate(server, out)  # the server is gone, and nobody asks it
    assert again.asked == 0 and again.report == result.report


def test_an_evaluation_that_was_killed_within_its_first_line_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with serve(answer) as server:
        evaluate(server, out)
        whole = out.read_bytes()
        for content in (b"", whole[:20]):
            out.write_bytes(content)
            assert evaluate(server, out).unresolved == (3,)
            assert out.read_bytes().startswith(whole.partition(b"\n")[0]) and len(out.read_bytes().splitlines()) == 5
        assert len(server.requests) == 4  # what was answered is in the call log


def test_what_another_process_answered_until_it_let_go_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answers.jsonl"
    with serve(answer) as server:
        evaluate(server, tmp_path / "other.jsonl")

        def lock_after_the_other(file: Path) -> Any:
            out.write_bytes((tmp_path / "other.jsonl").read_bytes())
            return lock_beside(file)

        monkeypatch.setattr("pgkd_agent.experiments.zero_shot.lock_beside", lock_after_the_other)
        evaluate(server, out)
    assert len(out.read_text().splitlines()) == 5 and len(server.requests) == 4


def test_as_many_requests_are_under_way_as_allowed(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=20)

    def together(call: int, body: dict[str, Any]) -> Answer:
        both.wait()  # breaks unless two requests are here at the same time
        return answer(call, body)

    with serve(together) as server:
        assert evaluate(server, tmp_path / "answers.jsonl").asked == 4


def test_a_teacher_that_cannot_be_reached_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TeacherUnavailableError, match="nothing listens there"):
        evaluate(OpenAIServer("http://127.0.0.1:9/v1"), tmp_path / "answers.jsonl")
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("my notes\n")
    with serve(answer) as server, pytest.raises(ConfigError, match="no zero-shot answers"):
        evaluate(server, out)
    assert out.read_text() == "my notes\n" and server.requests == []


def test_a_cap_keeps_the_answers_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    rows = [Example(f"{number} apples", "fruit") for number in range(12)]
    answers = tmp_path / "answers.jsonl"
    estimates: list[Estimate] = []

    def run(server: OpenAIServer, max_calls: int) -> ZeroShotResult:
        capped = config(server, **{"budget.max_calls": max_calls})
        return evaluate_zero_shot(rows, TAXONOMY, capped, answers, on_estimate=estimates.append)

    with serve(lambda _call, _body: completion('{"class_label": "fruit"}')) as server:
        with pytest.raises(BudgetExceededError, match=r"max_calls is 5.* 5 of 12 rows are answered"):
            run(server, 5)
        assert len(server.requests) == 5
        with pytest.raises(BudgetExceededError, match=r"max_calls is 7.* 7 of 12 rows are answered"):
            run(server, 7)  # of all parts together
        assert len(server.requests) == 7
        result = run(server, 12)
        assert len(server.requests) == 12 and result.asked == 5
    assert [estimate.calls for estimate in estimates] == [12, 7, 5]
    prompt = estimate_tokens(server.requests[0]["messages"][0]["content"])
    assert estimates[0].input_tokens[0] == pytest.approx(12 * prompt, rel=0.05)
