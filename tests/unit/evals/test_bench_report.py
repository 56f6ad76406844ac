"""What `make bench` makes of its runs: medians, ratios by round, and a table that shows what failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from evals.bench.common import quality, read_rows
from evals.bench.report import add_ratios, summarize, to_markdown
from evals.bench.splits import freeze_splits
from pgkd_agent import build_config
from pgkd_agent.pipeline import load_task


def entry(name: str, is_ours: bool, figures: list[dict[str, float]]) -> dict[str, Any]:
    runs = [{"round": number, "seed": None, "figures": one} for number, one in enumerate(figures)]
    return {"name": name, "is_ours": is_ours, "runs": runs, "failure": "", "summary": summarize(runs)}


def race(part: str, *entries: dict[str, Any]) -> dict[str, Any]:
    raced = {"part": part, "dataset": "d", "contenders": list(entries)}
    add_ratios(raced)
    return raced


def test_a_ratio_is_of_neighbours_and_not_of_medians() -> None:
    ours = entry("ours", True, [{"seconds_per_epoch": 1.0}, {"seconds_per_epoch": 2.0}, {"seconds_per_epoch": 4.0}])
    theirs = entry("rival", False, [{"seconds_per_epoch": 3.0}, {"seconds_per_epoch": 6.0}, {"seconds_per_epoch": 8.0}])
    raced = race("train", ours, theirs)
    assert theirs["ratios"]["seconds_per_epoch"] == {"median": 3.0, "min": 2.0, "max": 3.0}
    assert raced["references"]["seconds_per_epoch"] == "ours" and ours["ratios"] == {}
    assert theirs["summary"]["seconds_per_epoch"] == {"median": 6.0, "min": 3.0, "max": 8.0, "n": 3}


def test_the_reference_of_an_inference_is_the_best_that_answers_the_same() -> None:
    def figures(texts: float, p50: float, agreement: float) -> list[dict[str, float]]:
        return [{"texts_per_second": texts, "p50_ms": p50, "agreement": agreement}]

    slow_rival = entry("pipeline", False, figures(100, 20, 1))
    raced = race(
        "infer",
        entry("torch", True, figures(400, 10, 1)),
        entry("bf16", True, figures(1000, 16, 0.996)),
        entry("onnx", True, figures(300, 5, 1)),
        entry("int8", True, figures(2000, 2, 0.98)),
        slow_rival,
    )
    assert raced["references"] == {"texts_per_second": "bf16", "p50_ms": "onnx"}
    assert slow_rival["ratios"]["texts_per_second"]["median"] == pytest.approx(10)
    assert slow_rival["ratios"]["p50_ms"]["median"] == pytest.approx(4)


def test_a_contender_that_failed_is_in_the_table_with_the_reason() -> None:
    failed = entry("rival", False, []) | {"failure": "exit code 1: no such module"}
    machine = {"cpu": "c", "cores": 2, "flags": [], "system": "s", "load_at_start": 0.0}
    results = {"date": "d", "commit": "", "machine": machine, "threads": "", "versions": {"rivals": {}}, "command": "x"}
    table = to_markdown({**results, "races": [race("train", entry("ours", True, [{"accuracy": 0.5}]), failed)]})
    assert "| rival | exit code 1: no such module |" in table and "| ours | 0.500 |" in table


def test_quality_is_that_of_scikit_learn_and_a_class_without_a_column_has_no_loss() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), size=60)
    gold = random.integers(0, 4, size=60)
    found = quality(probabilities.tolist(), gold.tolist(), range(4), seen={0, 1, 2})
    predicted = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found["test_loss"] == pytest.approx(log_loss(gold, probabilities))
    known = gold != 3
    rows = probabilities[known, gold[known]]
    assert found["seen_loss"] == pytest.approx(-np.log(rows).mean())
    fewer = quality(probabilities[:, :3].tolist(), gold.tolist(), [2, 0, 1], seen={0, 1, 2})
    assert fewer["test_loss"] is None and fewer["seen_loss"] is not None
    assert fewer["accuracy"] == pytest.approx(accuracy_score(gold, np.array([2, 0, 1])[probabilities[:, :3].argmax(1)]))


def test_splits_are_the_rows_that_the_package_draws(tmp_path: Path) -> None:
    rows = [{"text": f"text number {number}", "label": "ab"[number % 2]} for number in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "labels.json").write_text('["a", "b"]', encoding="utf-8")
    freeze_splits(tmp_path, tmp_path / "splits", 20, [1, 2])
    task = load_task(
        tmp_path / "train.jsonl",
        labels=tmp_path / "labels.json",
        config=build_config(flags={"data.rows": 20, "seed": 2}),
    )
    for part, expected in (("train", task.train), ("validation", task.validation)):
        written = read_rows(tmp_path / "splits" / "2" / f"{part}.jsonl")
        assert written == [(row.text, row.label) for row in expected]
    assert read_rows(tmp_path / "splits" / "1" / "train.jsonl") != read_rows(tmp_path / "splits" / "2" / "train.jsonl")
