"""`pgkd bench latency-cost`: figures with their basis, on a small random BERT and a loopback server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import build_config
from pgkd_agent.errors import BudgetExceededError, ConfigError, DataError
from pgkd_agent.experiments.bench import LatencyCost, MachinePrices, StudentOptions, measure_latency_cost
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, Label
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, serve

ROWS = sentences(2, 3)


@pytest.fixture(scope="module")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "best"
    TorchStudent(tiny_config(tiny_student).student, tuple(map(Label, TOPICS)), seed=1).save(folder)
    return folder


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "as_of: 2026-01-02\nmodels:\n  openai:m: {input_per_million: 10, output_per_million: 50}\n", encoding="utf-8"
    )
    return file


def fruit(_call: int, _body: dict[str, Any]) -> Answer:
    """100 tokens in, 20 out."""
    return completion('{"class_label": "fruit"}')


def measure(
    model: Path, server: OpenAIServer | None, answers: Path | None, machine: MachinePrices, **flags: Any
) -> LatencyCost:
    base = {} if server is None else {"teacher.spec": "openai:m", "teacher.base_url": server.base_url}
    config = build_config(flags={**base, **flags})
    return measure_latency_cost(model, ROWS, config, answers, machine, StudentOptions(repeats=3))


def test_what_is_measured_and_what_is_computed(model: Path, tmp_path: Path, prices: Path) -> None:
    with serve(fruit) as server:
        result = measure(
            model, server, tmp_path / "answers.jsonl", MachinePrices(cpu=3.6), **{"teacher.prices": prices}
        )
        assert len(server.requests) == len(ROWS) == 8
    student, llm = result.results[0], result.results[-1]
    assert student.name == "student, cpu" and student.seconds.basis == "measured" and student.seconds.value
    assert student.usd.basis == "computed" and student.usd.value == pytest.approx(student.seconds.value / 1000)
    assert llm.name == "openai:m" and llm.seconds.basis == "measured" and "8 requests at a time" in llm.seconds.how
    assert llm.usd.basis == "computed" and llm.usd.value == pytest.approx(8 * (100 * 10 + 20 * 50) / 1e6)
    assert "800 tokens in and 160 out" in llm.usd.how and "2026-01-02" in llm.usd.how
    assert llm.accuracy == 0.25
    ratio = result.ratios[0]
    assert ratio.student == "student, cpu" and ratio.seconds.value and llm.seconds.value
    assert ratio.seconds.value == pytest.approx(llm.seconds.value / student.seconds.value)
    assert ratio.usd.basis == "computed" and ratio.usd.value == pytest.approx(llm.usd.value / student.usd.value)


def test_what_is_not_known_is_not_zero(model: Path, tmp_path: Path) -> None:
    with serve(fruit) as server:
        result = measure(model, server, tmp_path / "answers.jsonl", MachinePrices())
    student, llm = result.results[0], result.results[-1]
    assert student.usd.value is None and student.usd.basis == "not known"
    assert "--machine-usd-per-hour" in student.usd.how
    assert llm.usd.value is None and "no price for openai:m" in llm.usd.how
    assert result.ratios[0].usd.value is None and result.ratios[0].usd.basis == "not known"


def test_a_server_that_reports_no_tokens_is_not_free(model: Path, tmp_path: Path, prices: Path) -> None:
    def without_usage(call: int, body: dict[str, Any]) -> Answer:
        answer = fruit(call, body)
        assert isinstance(answer.content, dict)
        del answer.content["usage"]
        return answer

    with serve(without_usage) as server:
        result = measure(model, server, tmp_path / "answers.jsonl", MachinePrices(), **{"teacher.prices": prices})
    assert result.results[-1].usd.value is None and "no tokens" in result.results[-1].usd.how


def test_a_cap_holds_and_what_was_asked_before_is_not_timed_again(model: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    one_by_one = {"teacher.max_concurrency": 1}
    with serve(fruit) as server:
        with pytest.raises(BudgetExceededError, match="max_calls is 3"):
            measure(model, server, answers, MachinePrices(), **{"budget.max_calls": 3, **one_by_one})
        assert len(server.requests) == 3
        rest = measure(model, server, answers, MachinePrices(), **one_by_one).results[-1]
        assert rest.seconds.basis == "computed" and "from the 5 rows" in rest.seconds.how
        again = measure(model, server, answers, MachinePrices(), **one_by_one)
        assert len(server.requests) == 8
    assert again.results[-1].seconds.value is None and "answers were there already" in again.results[-1].seconds.how
    assert again.ratios[0].seconds.value is None


def test_a_label_that_the_model_does_not_know(model: Path) -> None:
    with pytest.raises(
        DataError, match=r"1 of the 1 rows have a label that .* does not know, such as 'fuit' \(it has 4"
    ):
        measure_latency_cost(
            model, [Example("an apple", "fuit")], build_config(), None, MachinePrices(), StudentOptions()
        )
    with pytest.raises(ConfigError, match="no such folder"):
        measure(model / "nowhere", None, None, MachinePrices())


def test_the_command(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": row.text, "label": row.label}) + "\n" for row in ROWS))
    command = ("bench", "latency-cost", model, file)
    too_few = pgkd(*command)
    assert too_few.returncode == 2 and "8 rows, fewer than the batch of 64; give --rows 8" in too_few.stderr
    aimless = pgkd(*command, "--rows", "8", "--base-url", "http://127.0.0.1:9/v1")
    assert aimless.returncode == 2 and "name it with --teacher" in aimless.stderr
    local = pgkd(*command, "--rows", "8", "--teacher", "local:smollm2", "--base-url", "http://127.0.0.1:9/v1")
    assert local.returncode == 2 and "a local: teacher has no server" in " ".join(local.stderr.split())
    alone = pgkd(*command, "--rows", "8", "--json")
    assert alone.returncode == 0, alone.stderr
    found = json.loads(alone.stdout)
    assert found["rows"] == 8 and found["answers"] is None and found["ratios"] == []
    assert found["results"][0]["seconds"]["basis"] == "measured" and found["results"][0]["usd"]["value"] is None
    with serve(fruit) as server:
        llm = ("--teacher", "openai:m", "--base-url", server.base_url, "--out", tmp_path / "answers.jsonl")
        told = pgkd(*command, "--rows", "8", *llm, "--machine-usd-per-hour", "1")
    assert told.returncode == 0, told.stderr
    assert "student, cpu: accuracy" in told.stdout and "measured (wall time of 8 calls" in told.stdout
    assert "not known (no price for openai:m" in told.stdout and "LLM against student, cpu" in told.stdout
    assert "estimate: 8 calls" in told.stderr
