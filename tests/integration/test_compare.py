"""Comparisons: real students, an LLM behind a loopback server, cells on disk."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pgkd_agent.errors import PromptError, StorageError
from pgkd_agent.experiments.compare import ComparisonFile, Grid, Progress, fill, lines, read_comparison
from pgkd_agent.experiments.compare import grid as grids
from pgkd_agent.experiments.methods import Outcome, Setting, run_method
from pgkd_agent.metrics.intervals import NOT_ASKED
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS
from tests.integration.openai_server import Answer, OpenAIServer, completion, failure, serve

PLAN = {
    "seeds": [1, 2],
    "datasets": {"topics": {"settings": {"data": {"rows": 60}}}},
    "methods": {"plain": {}, "pgkd": {}, "control": {}, "zero_shot": {}},
}


def says(call: int, body: dict[str, Any]) -> Answer:
    """Samples where it is asked for some, else a label."""
    if "samples" in json.dumps(body["messages"]):
        texts = [f"some {word} number {call}" for word in ("mango", "cow")]
        rows = [{"text": text, "label": label} for text, label in zip(texts, ("fruit", "animals"), strict=True)]
        return completion(json.dumps({"samples": rows}))
    return completion('{"class_label": "fruit"}')


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serve(says) as running:
        yield running


def plan_of(student: Path, server: OpenAIServer | None, **changes: Any) -> ComparisonFile:
    settings = {
        "student": {
            "name": str(student), "learning_rate": 3e-3, "train_batch_size": 16, "max_epochs": 3,
            "bf16": "off",
        },
        "pgkd": {"num_kd_steps": 2, "pgkd_batch_size": 2},
        "teacher": {
            "spec": "openai:m", "base_url": server.base_url if server else "http://127.0.0.1:9/v1", "prompt": "paper",
            "structured": "text",
        },
    }  # fmt: skip
    return ComparisonFile.model_validate({**PLAN, "settings": settings, **changes})


def test_a_grid_is_filled_once(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle and started again, no finished cell is run and no answered call is sent again."""
    plan, out = plan_of(tiny_student, server), tmp_path / "out"
    started: list[str] = []

    def killed_at_the_sixth(name: str, setting: Setting, options: Any) -> Outcome:
        started.append(f"{name} {setting.config.seed}")
        outcome = run_method(name, setting, options)
        if len(started) == 6:
            raise KeyboardInterrupt
        return outcome

    monkeypatch.setattr(grids, "run_method", killed_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        fill(plan, data, out)
    assert started == ["plain 1", "pgkd 1", "zero_shot 1", "control 1", "plain 2", "pgkd 2"]
    calls = len(server.requests)
    so_far = fill(plan, data, out, only_stored=True)
    assert len(so_far.done) == 5 and set(so_far.failures.values()) == {
        "not run yet",
        "'pgkd', which it repeats, is not there",
    }
    assert len(started) == 6
    said: list[Progress] = []
    grid = fill(plan, data, out, said.append)
    assert started[6:] == ["pgkd 2", "zero_shot 2", "control 2"]
    assert len(server.requests) == calls + 20  # the test rows of zero-shot; the run of PGKD was at its end
    assert len(grid.done) == 8 and not grid.failures
    assert [item.number for item in said] == list(range(1, 9)) and said[-1].seconds_left == 0
    assert fill(plan, data, out) == grid
    by_place = {(cell.entry, cell.seed): cell for cell in grid.done}
    assert by_place["control", 1].accepted == by_place["pgkd", 1].accepted != ()
    assert by_place["pgkd", 1].gradient_steps == by_place["control", 1].gradient_steps
    assert by_place["zero_shot", 2].requests == 20 and by_place["plain", 1].requests == 0


def test_all_rows_mean_all_and_a_part_of_the_test_rows_is_compared_with_the_same_part(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer
) -> None:
    methods = {"plain": {}, "full_shot": {}, "zero_shot": {"options": {"rows": 7}}}
    plan = plan_of(tiny_student, server, methods=methods, seeds=[1])
    grid = fill(plan, data, tmp_path / "out")
    assert not grid.failures
    plain, full, zero = grid.done
    assert (plain.rows, full.rows) == (48, 64)
    gold = np.array(zero.gold)
    asked = np.array(zero.predicted) != NOT_ASKED
    assert asked.sum() == 7 == len(server.requests)
    by_entry = {line.entry: line for line in lines(plan, grid)}
    right = (gold == np.array(zero.predicted))[asked]
    assert by_entry["zero_shot"].metrics["accuracy"].mean == pytest.approx(right.mean())
    difference = right.mean() - (gold == np.array(plain.predicted))[asked].mean()
    assert by_entry["zero_shot"].differences["accuracy"].mean == pytest.approx(difference)
    assert all((line.predict_seconds or 0) > 0 for line in by_entry.values())


def test_what_two_methods_ask_alike_is_asked_once(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    def writes(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        label = next(name for name in TOPICS if f'class \\"{name}\\"' in prompt)
        texts = [f"{word} {label} {call}" for word in TOPICS[label]]
        return completion(json.dumps({"samples": [{"text": text, "label": label} for text in texts]}))

    methods = {
        "plain": {},
        "zerogen": {"options": {"per_class": 8}},
        "sungen": {"options": {"per_class": 8, "rounds": 1}},
    }
    with serve(writes) as server:
        plan = plan_of(tiny_student, server, methods=methods, seeds=[1])
        overrides = {"teacher": {"samples_per_request": 8}}
        grid = fill(plan.model_copy(update={"overrides": overrides}), data, tmp_path / "out")
        assert not grid.failures and len(server.requests) == 4  # a class each
    _, zerogen, sungen = grid.done
    assert zerogen.rows == sungen.rows and zerogen.requests == sungen.requests == 4
    assert zerogen.input_tokens == sungen.input_tokens == 400  # it counts for both


def test_a_method_ends_where_it_has_taken_as_many_tokens_as_pgkd(
    tmp_path: Path, data: Path, tiny_student: Path
) -> None:
    def writes(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        label = next((name for name in TOPICS if f'class \\"{name}\\"' in prompt), "fruit")
        texts = [f"{word} {label} {call}" for word in TOPICS[label][: 2 + 6 * ("typical" in prompt)]]
        return completion(json.dumps({"samples": [{"text": text, "label": label} for text in texts]}))

    capped = {"tokens_of": "pgkd"}
    methods = {
        "plain": {},
        "zerogen": {"options": {"per_class": 80}, **capped},
        "sungen": {"options": {"per_class": 80, "rounds": 1}, **capped},
        "pgkd": {},
    }
    overrides = {
        "teacher": {"samples_per_request": 8, "max_tokens": 64, "max_concurrency": 1},
        "pgkd": {"num_kd_steps": 20, "patience_limit": 99},
    }
    with serve(writes) as server:
        plan = plan_of(tiny_student, server, methods=methods, seeds=[1])
        grid = fill(plan.model_copy(update={"overrides": overrides}), data, tmp_path / "out")
    assert not grid.failures
    by_entry = {cell.entry: cell for cell in grid.done}
    tokens = {entry: cell.input_tokens + cell.output_tokens for entry, cell in by_entry.items()}
    assert 0 < tokens["zerogen"] <= tokens["pgkd"] and by_entry["zerogen"].requests < 40  # which it would have sent
    assert by_entry["zerogen"].rows > 0
    assert by_entry["sungen"].rows == by_entry["zerogen"].rows  # found replies take as much of the cap as sent ones
    assert tokens["sungen"] == tokens["zerogen"]


def test_methods_that_label_have_the_rows_left_out_or_a_file_of_texts(
    tmp_path: Path, data: Path, tiny_student: Path
) -> None:
    asked: list[str] = []

    def knows(call: int, body: dict[str, Any]) -> Answer:
        prompt = body["messages"][-1]["content"]
        if "samples" in prompt:
            return says(call, body)
        asked.append(re.findall(r'\{"text": "([^"]*)"\}', prompt)[-1])
        label = next(name for name, words in TOPICS.items() if {*words} & {*asked[-1].split()})
        return completion(json.dumps({"class_label": label}))

    every = {row["text"] for row in map(json.loads, (data / "topics" / "train.jsonl").read_text().splitlines())}
    names = ("pgkd_label", "label_drawn", "pgkd_write_and_label")
    few = {"settings": {"data": {"rows": 60}, "pgkd": {"num_kd_steps": 1, "labels_per_step": 6}}}
    with serve(knows) as server:
        plan = plan_of(tiny_student, server, datasets={"topics": few}, seeds=[1], methods={name: {} for name in names})
        first = fill(plan, data, tmp_path / "out")
        assert not first.failures and {*asked} <= every
        counts = {cell.entry: sum(sum(step.values()) for step in cell.accepted) for cell in first.done}
        assert counts == {"pgkd_label": 6, "label_drawn": 6, "pgkd_write_and_label": 8}
        asked.clear()
        pool = [f"{word} and nothing else" for words in TOPICS.values() for word in words[:4]]
        lines_of_pool = "".join(json.dumps({"text": text}) + "\n" for text in pool)
        (data / "topics" / "unlabelled.jsonl").write_text(lines_of_pool)
        plan = plan_of(tiny_student, server, datasets={"topics": few}, seeds=[1], methods={"pgkd_label": {}})
        assert not fill(plan, data, tmp_path / "out").failures
        assert len({*asked} & {*pool}) == 6, "other texts are another cell"
        (data / "topics" / "unlabelled.jsonl").unlink()
        whole = {"settings": {"data": {"rows": None}}}
        plan = plan_of(tiny_student, server, datasets={"topics": whole}, seeds=[1], methods={"pgkd_label": {}})
        assert "`data.rows` leaves no row out" in str(fill(plan, data, tmp_path / "out").failures)


def test_one_run_of_pgkd_serves_the_students_of_all_seeds(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer
) -> None:
    methods = {"plain": {}, "pgkd": {"seeds": [2]}, "frozen": {"of": "pgkd"}, "control": {"of": "frozen"}}
    out = tmp_path / "out"
    grid = fill(plan_of(tiny_student, server, methods=methods), data, out)
    assert not grid.failures and len(server.requests) == 2  # one run of two steps
    by_place = {(cell.entry, cell.seed): cell for cell in grid.done}
    assert set(by_place) == {
        ("pgkd", 2),
        *((entry, seed) for entry in ("plain", "frozen", "control") for seed in (1, 2)),
    }
    assert by_place["frozen", 2].accepted == by_place["pgkd", 2].accepted
    assert by_place["frozen", 2].predicted == by_place["pgkd", 2].predicted  # same rows, seed and samples
    assert by_place["frozen", 2].requests == 0
    assert by_place["control", 1].accepted == by_place["frozen", 1].accepted
    stored = json.loads(cell_files(out, "frozen")[0].read_text())["identity"]
    assert [len(step) for step in stored["pool"]] == [2, 0] and "teacher" not in stored["config"]


def cell_files(out: Path, method: str) -> list[Path]:
    return sorted((out / "cells" / "topics" / method).glob("*.json"))


def test_cells_of_other_settings_rows_or_names_lie_side_by_side(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    plan, out = plan_of(tiny_student, None, methods={"plain": {}}, seeds=[1]), tmp_path / "out"
    first = fill(plan, data, out)
    (stored,) = cell_files(out, "plain")
    before = stored.read_text()
    fill(plan.model_copy(update={"overrides": {"student": {"max_epochs": 2}}}), data, out)
    train = data / "topics" / "train.jsonl"
    whole = train.read_text()
    train.write_text("\n".join(whole.splitlines()[:-3]))
    fill(plan, data, out)
    train.write_text(whole)
    assert len(cell_files(out, "plain")) == 3 and stored.read_text() == before
    unused = {"teacher": {"temperature": 0.1}, "pgkd": {"num_kd_steps": 7}, "guardrails": {"verify": True}}
    same = fill(plan.model_copy(update={"overrides": unused}), data, out, only_stored=True)
    other_names = {"methods": {"bare": {"method": "plain"}}, "baseline": "bare"}
    renamed = fill(plan_of(tiny_student, None, seeds=[1], **other_names), data, out, only_stored=True)
    assert same.done == first.done and [cell.entry for cell in renamed.done] == ["bare"]
    assert renamed.done[0].predicted == first.done[0].predicted
    stored.write_text("half")
    with pytest.raises(StorageError, match=r"damaged .* remove it"):
        fill(plan, data, out)


def test_what_was_begun_with_other_settings_is_not_gone_on_with(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = plan_of(tiny_student, server, methods={"plain": {}, "pgkd": {}}, seeds=[1]), tmp_path / "out"

    def killed(name: str, setting: Setting, options: Any) -> Outcome:
        outcome = run_method(name, setting, options)
        if name == "pgkd":
            raise KeyboardInterrupt
        return outcome

    monkeypatch.setattr(grids, "run_method", killed)
    with pytest.raises(KeyboardInterrupt):
        fill(plan, data, out)
    calls = len(server.requests)
    monkeypatch.setattr(grids, "run_method", run_method)
    fill(plan.model_copy(update={"overrides": {"teacher": {"temperature": 0.1}}}), data, out)
    assert len(server.requests) == 2 * calls
    fill(plan, data, out)
    assert len(server.requests) == 2 * calls and len(cell_files(out, "pgkd")) == 2


def test_a_run_whose_folder_is_gone_has_no_samples_to_train_on(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer
) -> None:
    methods = {"plain": {}, "pgkd": {"seeds": [1]}, "frozen": {}}
    plan, out = plan_of(tiny_student, server, methods=methods, seeds=[1]), tmp_path / "out"
    fill(plan, data, out)
    (run,) = cell_files(out, "pgkd")
    shutil.rmtree(run.with_suffix(""))
    grid = fill(plan, data, out)
    assert [cell.entry for cell in grid.done] == ["plain", "pgkd"]
    assert "samples of 'pgkd' are not in" in grid.failures["topics, frozen, seed 1"]


def test_a_damaged_run_is_named_and_not_paid_for_again_and_so_is_a_damaged_cell(
    tmp_path: Path, data: Path, tiny_student: Path, server: OpenAIServer
) -> None:
    plan, out = plan_of(tiny_student, server, methods={"plain": {}, "pgkd": {}}, seeds=[1]), tmp_path / "out"
    fill(plan, data, out)
    (cell,), requests = cell_files(out, "pgkd"), len(server.requests)
    content = cell.read_text()
    cell.unlink()
    (cell.with_suffix("") / "run" / "test.jsonl").unlink()
    grid = fill(plan, data, out)
    assert "test.jsonl is missing" in grid.failures["topics, pgkd, seed 1"] and len(server.requests) == requests
    found = json.loads(content)
    found["cell"]["predicted"][0] ^= 1  # a turned bit
    cell.write_text(json.dumps(found))
    with pytest.raises(StorageError, match="it is not what was written"):
        fill(plan, data, out)


def test_a_dataset_whose_rate_cannot_be_chosen_is_named(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    wanting = {"few": {"source": "topics", "settings": {"data": {"rows": 500}}}, "topics": {}}
    tune = {"student.learning_rate": [1e-3, 1e-2]}
    grid = fill(plan_of(tiny_student, None, methods={"plain": {}}, datasets=wanting, tune=tune), data, tmp_path / "out")
    assert [cell.dataset for cell in grid.done] == ["topics", "topics"]
    assert grid.failures == {"few, tuning": "not enough rows: 80 of 500"}


def test_a_failed_cell_is_named_and_the_others_go_on(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: failure(401, "no such key")) as server:
        grid = fill(plan_of(tiny_student, server, seeds=[1]), data, tmp_path / "out")
    assert [cell.entry for cell in grid.done] == ["plain"]
    assert set(grid.failures) == {f"topics, {entry}, seed 1" for entry in ("pgkd", "zero_shot", "control")}
    assert "401" in grid.failures["topics, pgkd, seed 1"] and "is not there" in grid.failures["topics, control, seed 1"]


def test_what_nobody_thought_of_costs_one_cell(
    tmp_path: Path, data: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_with_seed_1(name: str, setting: Setting, options: Any) -> Outcome:
        if setting.config.seed == 1:
            raise RuntimeError("out of memory")
        return run_method(name, setting, options)

    monkeypatch.setattr(grids, "run_method", fails_with_seed_1)
    grid = fill(plan_of(tiny_student, None, methods={"plain": {}}), data, tmp_path / "out")
    assert grid.failures == {"topics, plain, seed 1": "RuntimeError: out of memory"}
    assert [cell.seed for cell in grid.done] == [2]


def test_a_prompt_that_is_not_there_is_named_before_anything_runs(
    tmp_path: Path, data: Path, tiny_student: Path
) -> None:
    plan = plan_of(tiny_student, None, methods={"plain": {}, "pgkd": {"settings": {"teacher": {"prompt": "papr"}}}})
    with pytest.raises(PromptError, match="papr"):
        fill(plan, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_with_too_few_rows_says_so(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    wanting = {"topics": {"settings": {"data": {"rows": 500}}}}
    grid: Grid = fill(plan_of(tiny_student, None, methods={"plain": {}}, datasets=wanting), data, tmp_path / "out")
    assert grid.done == () and set(grid.failures.values()) == {"not enough rows: 80 of 500"}


def test_the_rate_is_chosen_by_the_validation_loss_of_the_plain_student(
    tmp_path: Path, data: Path, tiny_student: Path
) -> None:
    rates = [1e-6, 3e-3]
    plan = plan_of(tiny_student, None, methods={"plain": {}}, tune={"student.learning_rate": rates})
    grid = fill(plan, data, tmp_path / "out")
    stored = [json.loads(file.read_text()) for file in cell_files(tmp_path / "out", "plain")]
    losses = {
        cell["identity"]["config"]["student"]["learning_rate"]: cell["cell"]["validation_loss"]
        for cell in stored
        if cell["cell"]["seed"] == 1
    }
    assert set(losses) == set(rates) and losses[1e-6] != losses[3e-3]
    best = min(losses, key=lambda rate: losses[rate])
    assert grid.tuned == {"topics": {"student": {"learning_rate": best}}}
    of_two = [cell["identity"]["config"]["student"] for cell in stored if cell["cell"]["seed"] == 2]
    assert [student["learning_rate"] for student in of_two] == [best]
    assert len(stored) == 3  # the choice of seed 1 is its cell of the table too


def test_from_the_command_line(tmp_path: Path, data: Path, tiny_student: Path) -> None:
    plan = plan_of(tiny_student, None, methods={"plain": {}, "pgkd": {}}, about="Two methods.", hours=0.1)
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(json.loads(plan.model_dump_json())), encoding="utf-8")
    assert read_comparison(file) == plan
    common = ("compare", file, "--data", data, "--out", tmp_path / "out")
    done = pgkd(*common, "--methods", "plain", "--set", "student.max_epochs=2")
    assert done.returncode == 0, done.stderr
    assert "2 cells: 1 method, 1 dataset, 2 seeds, about 0.1 hours" in done.stderr
    assert "2/2 topics, plain, seed 2: done, about 0:00:00 left" in done.stderr
    assert "### topics" in done.stdout and "| plain | 0." in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("results.*")} == {
        f"results.{suffix}" for suffix in ("json", "csv", "md")
    }
    failed = pgkd(*common, "--seeds", "1", "--set", "student.max_epochs=2")  # nothing listens on that port
    assert failed.returncode == 1 and "topics, pgkd, seed 1: failed" in failed.stderr and "Missing:" in failed.stdout
    assert pgkd(*common, "--seeds", "one").returncode == 2
