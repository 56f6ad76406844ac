"""`pgkd bench latency-cost`: figures and where they come from, on a small random BERT and a loopback server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import build_config
from pgkd_agent.errors import BudgetExceededError, ConfigError, DataError
from pgkd_agent.experiments.bench import Measured, measure_latency_cost
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
    model: Path, server: OpenAIServer | None, answers: Path | None, cpu_price: float | None = None, **flags: Any
) -> list[Measured]:
    base = {} if server is None else {"teacher.spec": "openai:m", "teacher.base_url": server.base_url}
    config = build_config(flags={**base, **flags})
    return measure_latency_cost(model, ROWS, config, answers, cpu_price, repeats=3)


def test_what_is_measured_and_what_is_computed(model: Path, tmp_path: Path, prices: Path) -> None:
    with serve(fruit) as server:
        result = measure(model, server, tmp_path / "answers.jsonl", 3.6, **{"teacher.prices": prices})
        assert len(server.requests) == len(ROWS) == 8
    student, llm = result[0], result[-1]
    assert student.name == "student, cpu" and student.seconds.how.startswith("measured") and student.seconds.value
    assert student.cost.value == pytest.approx(student.seconds.value / 1000)
    assert student.cost.how.startswith("computed")
    assert (
        llm.name == "openai:m" and llm.seconds.how.startswith("measured") and "8 requests at a time" in llm.seconds.how
    )
    assert llm.cost.how.startswith("computed") and llm.cost.value == pytest.approx(8 * (100 * 10 + 20 * 50) / 1e6)
    assert "800 tokens in, 160 out" in llm.cost.how and "2026-01-02" in llm.cost.how
    assert llm.accuracy == 0.25


def test_what_is_not_known_is_not_zero(model: Path, tmp_path: Path) -> None:
    with serve(fruit) as server:
        result = measure(model, server, tmp_path / "answers.jsonl")
    student, llm = result[0], result[-1]
    assert student.cost.value is None and student.cost.how.startswith("not known")
    assert "`machine_usd_per_hour`" in student.cost.how
    assert llm.cost.value is None and "no price for openai:m" in llm.cost.how


def test_a_server_that_reports_no_tokens_is_not_free(model: Path, tmp_path: Path, prices: Path) -> None:
    def without_usage(call: int, body: dict[str, Any]) -> Answer:
        answer = fruit(call, body)
        assert isinstance(answer.content, dict)
        del answer.content["usage"]
        return answer

    with serve(without_usage) as server:
        result = measure(model, server, tmp_path / "answers.jsonl", **{"teacher.prices": prices})
    assert result[-1].cost.value and "(estimated for 8 calls: the provider reports none)" in result[-1].cost.how


def test_a_cap_holds_and_what_was_asked_before_is_not_timed_again(model: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    one_by_one = {"teacher.max_concurrency": 1}
    with serve(fruit) as server:
        with pytest.raises(BudgetExceededError, match="max_calls is 3"):
            measure(model, server, answers, **{"budget.max_calls": 3, **one_by_one})
        assert len(server.requests) == 3
        rest = measure(model, server, answers, **one_by_one)[-1]
        assert rest.seconds.how.startswith("computed") and "from the 5 rows" in rest.seconds.how
        again = measure(model, server, answers, **one_by_one)
        assert len(server.requests) == 8
    assert again[-1].seconds.value is None and "answers were there already" in again[-1].seconds.how


def test_a_label_that_the_model_does_not_know(model: Path) -> None:
    with pytest.raises(
        DataError, match=r"1 of the 1 rows have a label that .* does not know, such as 'fuit' \(it has 4"
    ):
        measure_latency_cost(model, [Example("an apple", "fuit")], build_config())
    with pytest.raises(ConfigError, match="no such folder"):
        measure(model / "nowhere", None, None)


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
    assert found["rows"] == 8 and found["answers"] is None and len(found["results"]) == 1
    assert found["results"][0]["seconds"]["how"].startswith("measured") and found["results"][0]["cost"]["value"] is None
    with serve(fruit) as server:
        llm = ("--teacher", "openai:m", "--base-url", server.base_url, "--out", tmp_path / "answers.jsonl")
        told = pgkd(*command, "--rows", "8", *llm, "--machine-usd-per-hour", "1")
    assert told.returncode == 0, told.stderr
    assert "student, cpu: accuracy" in told.stdout and "measured: wall time of 8 calls" in told.stdout
    assert "not known: no price for openai:m" in told.stdout and "LLM against student, cpu: " in told.stdout
    own, llms = map(float, re.findall(r"^  seconds  ([\d.e-]+),", told.stdout, re.MULTILINE))
    (times,) = re.findall(r"([\d.e+]+) times the seconds", told.stdout)
    assert float(times) == pytest.approx(llms / own, rel=0.01)
    assert "estimate: 8 calls" in told.stderr
