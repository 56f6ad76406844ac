"""Methods and their comparison: real students, an LLM behind a loopback server, cells on disk."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pgkd_agent.compare import ComparisonFile, Grid, Progress, fill, read_comparison
from pgkd_agent.compare import grid as grids
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task, prepare_task
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.methods import METHODS, Outcome, PlainFits, Setting, rows, run_method
from pgkd_agent.methods.eda import from_table
from pgkd_agent.methods.loops import RepeatingTeacher
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, FitResult, Label
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import Answer, OpenAIServer, completion, failure, serve
from tests.integration.test_cli import pgkd
from tests.unit.builders import request_of

WORDS = from_table({word: [other for other in words if other != word] for words in TOPICS.values() for word in words})


@pytest.fixture(autouse=True)
def synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """WordNet need not be installed here: words of a topic stand in for synonyms."""
    for module in (rows, METHODS["control_eda"].__globals__):
        target = module if isinstance(module, dict) else module.__dict__
        monkeypatch.setitem(target, "wordnet_synonyms", lambda _folder: WORDS)


@pytest.fixture(scope="module")
def task() -> Task:
    labels = tuple(Label(name) for name in TOPICS)
    return prepare_task(sentences(12, 0), sentences(5, 1), sentences(10, 2), taxonomy=labels)


def run_in(folder: Path, method: str, task: Task, config: PGKDConfig, **options: Any) -> Outcome:
    accepted = options.pop("accepted", None)
    return run_method(method, Setting(task, config, folder, accepted=accepted), options)


def test_plain_learns_and_counts_its_steps(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    outcome = run_in(tmp_path, "plain", task, config)
    assert outcome.report.accuracy > 0.6 and outcome.rows == 48
    right = sum(name == row.label for name, row in zip(outcome.predicted, task.test, strict=True))
    assert outcome.report.accuracy == pytest.approx(right / len(task.test))
    assert outcome.gradient_steps % 3 == 0 and 3 <= outcome.gradient_steps <= 24  # 48 rows in batches of 16, 8 epochs
    assert outcome.accepted == () and outcome.requests == 0


def test_a_control_repeats_real_rows_as_often_as_pgkd_accepted(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    accepted = ({"fruit": 3, "tools": 1}, {}, {"fruit": 14})
    outcome = run_in(tmp_path, "control", task, config, accepted=accepted)
    assert outcome.accepted == accepted and outcome.rows == 48 + 18
    with pytest.raises(ConfigError, match="name the method it belongs to"):
        run_in(tmp_path, "control", task, config)


def test_frozen_samples_come_step_by_step_and_are_screened_by_this_seeds_rows(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    fresh = [
        Example(f"{text} of old", label) for text, label in (("a ripe mango", "fruit"), ("the loud cow", "animals"))
    ]
    pool = ([fresh[0], Example(task.validation[0].text, "fruit")], [Example(task.test[0].text, "fruit")], fresh)
    impatient = config.model_copy(update={"pgkd": config.pgkd.model_copy(update={"patience_limit": 0})})
    outcome = run_method("frozen", Setting(task, impatient, tmp_path, pool=pool))
    assert outcome.accepted == ({"fruit": 1}, {}, {"animals": 1}) and outcome.rows == 48 + 2
    assert outcome.requests == 0
    with pytest.raises(ConfigError, match="name the method it belongs to"):
        run_in(tmp_path, "frozen", task, config)


def test_the_plain_student_is_trained_once_for_all_loops_of_a_seed(
    tmp_path: Path, task: Task, config: PGKDConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    fit = TorchStudent.fit

    def counted(self: TorchStudent, rows: Any, validation: Any, kd_step: int) -> FitResult:
        fits.append(kd_step)
        return fit(self, rows, validation, kd_step)

    monkeypatch.setattr(TorchStudent, "fit", counted)
    setting = Setting(task, config, tmp_path, accepted=({"fruit": 3},))
    alone = run_method("control", replace(setting, plain_fits=PlainFits()))
    plain, control, again = (run_method(name, setting) for name in ("plain", "control", "plain"))
    assert fits == [0, 1, 0, 1]  # the last plain student came from where the first was kept
    assert (control.predicted, control.gradient_steps) == (alone.predicted, alone.gradient_steps)
    assert again.predicted == plain.predicted and again.seconds > plain.seconds / 2
    other = replace(setting, config=config.model_copy(update={"seed": 2}))
    run_method("plain", other)
    assert fits[4:] == [0]


def test_rows_are_repeated_in_turns(task: Task) -> None:
    counts = ({"fruit": 5}, {"fruit": 9, "weather": 2})
    teacher = RepeatingTeacher(counts, seed=1)
    first, second = (teacher.write(request_of(task, kd_step)).samples for kd_step in (1, 2))
    assert Counter(row.label for row in second) == Counter(counts[1])
    fruit = [row.text for row in (*first, *second) if row.label == "fruit"]
    real = {row.text for row in task.train if row.label == "fruit"}
    assert set(fruit) == real and max(Counter(fruit).values()) == 2  # 14 of 12: each once before any comes again
    variants = RepeatingTeacher(counts, 1, WORDS).write(request_of(task, 1)).samples
    assert len(variants) == 5 and {row.text for row in variants} - real


def test_shots_are_rows_of_each_class_and_validation_rows_play_no_part(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    outcome = run_in(tmp_path, "no_augment", task, config, shots=2, steps=20)
    assert outcome.rows == 8 and outcome.gradient_steps == 20 and outcome.validation_loss is None
    other_validation = replace(task, validation=task.test)
    assert run_in(tmp_path, "no_augment", other_validation, config, shots=2, steps=20).predicted == outcome.predicted


def test_eda_adds_variants_of_every_row(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    outcome = run_in(tmp_path, "eda", task, config, shots=2, steps=10, num_aug=4)
    assert outcome.rows == 8 * 5 and outcome.gradient_steps == 12  # 3 batches an epoch, rounded up to whole epochs
    whole = run_in(tmp_path, "eda", task, config, num_aug=1)
    assert whole.rows == 96 and whole.validation_loss is not None


def test_gradual_begins_with_the_real_rows_and_changes_more_and_more(
    tmp_path: Path, task: Task, config: PGKDConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[list[str]] = []
    student_of = rows.new_student

    def watched(setting: Setting) -> Any:
        student = student_of(setting)
        fit = student.fit
        student.fit = lambda these, *more: (stages.append([row.text for row in these]), fit(these, *more))[1]
        return student

    monkeypatch.setattr(rows, "new_student", watched)
    outcome = run_in(tmp_path, "gradual", task, config, shots=2, steps=96, num_aug=4)
    assert [len(stage) for stage in stages] == [8, 40, 40, 40, 40, 40]
    assert outcome.gradient_steps == 96  # 1 + 5 x 3 steps an epoch of all stages, 6 epochs each

    def unchanged_words(stage: list[str]) -> int:
        real = stages[0]
        return sum(len(set(text.split()) & set(real[number // 4].split())) for number, text in enumerate(stage[8:]))

    assert unchanged_words(stages[5]) < unchanged_words(stages[1])


def test_zerogen_trains_on_generated_texts_alone(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    def writes(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        label = next(name for name in TOPICS if f'class \\"{name}\\"' in prompt)
        words = TOPICS[label]
        texts = [f"{words[(call + number) % 8]} and {words[(call + 3 * number) % 8]} {call}" for number in range(5)]
        return completion(json.dumps({"samples": [{"text": text, "label": label} for text in texts]}))

    with serve(writes) as server:
        teacher = {"spec": "openai:m", "base_url": server.base_url, "samples_per_request": 5, "max_concurrency": 1}
        changed = config.model_copy(update={"teacher": config.teacher.model_copy(update=teacher)})
        outcome = run_in(tmp_path, "zerogen", task, changed, per_class=10)
        prompts = [json.dumps(body["messages"]) for body in server.requests]
        assert not any(row.text in prompt for row in task.train for prompt in prompts)
        calls = len(prompts)
        assert outcome.requests == 8 and outcome.usage.input_tokens > 0 and 20 < outcome.rows <= 36
        again = run_in(tmp_path, "zerogen", task, changed, per_class=10)
        assert again.predicted == outcome.predicted and len(server.requests) - calls <= 1  # the check alone


def test_auggpt_says_each_row_in_other_words_and_keeps_its_label(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    shown: list[str] = []

    def rephrases(_call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        row = next(row for row in task.train if row.text in prompt)
        shown.append(row.text)
        texts = [" ".join(reversed(row.text.split())), f"so {row.text}", row.text]
        return completion(json.dumps({"samples": [{"text": text, "label": "anything"} for text in texts]}))

    with serve(rephrases) as server:
        teacher = {"spec": "openai:m", "base_url": server.base_url, "prompt": None, "max_attempts": 1}
        changed = config.model_copy(update={"teacher": config.teacher.model_copy(update=teacher)})
        outcome = run_in(tmp_path, "auggpt", task, changed, shots=2, steps=10, num_aug=3)
    assert len(set(shown)) == len(shown) == 8 == outcome.requests  # a row a call
    assert outcome.rows == 8 * 3  # the real one and two others; what only repeats it does not count


# ---- the grid

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
            "name": str(student), "learning_rate": 1e-2, "head_factor": 1, "train_batch_size": 16, "max_epochs": 3,
            "bf16": "off",
        },
        "pgkd": {"num_kd_steps": 2, "pgkd_batch_size": 2},
        "teacher": {
            "spec": "openai:m", "base_url": server.base_url if server else "http://127.0.0.1:9/v1", "prompt": "paper",
            "structured": "text", "max_attempts": 1,
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
    unused = {"teacher": {"temperature": 0.1}, "pgkd": {"num_kd_steps": 7}, "guardrails": {"min_chars": 9}}
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
    assert [cell.entry for cell in grid.done] == ["pgkd", "plain"]
    assert "samples of 'pgkd' are not in" in grid.failures["topics, frozen, seed 1"]


def test_a_control_takes_as_many_steps_as_pgkd_whatever_its_own_losses(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    impatient = config.model_copy(update={"pgkd": config.pgkd.model_copy(update={"patience_limit": 0})})
    accepted = tuple({"fruit": 1} for _ in range(4))
    assert run_in(tmp_path, "control", task, impatient, accepted=accepted).accepted == accepted


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
    assert "2 cells: 1 methods, 1 datasets, 2 seeds, about 0.1 hours" in done.stderr
    assert "2/2 topics, plain, seed 2: done, about 0:00:00 left" in done.stderr
    assert "### topics" in done.stdout and "| plain | 0." in done.stdout
    assert {path.name for path in (tmp_path / "out").glob("results.*")} == {
        f"results.{suffix}" for suffix in ("json", "csv", "md", "tex")
    }
    failed = pgkd(*common, "--seeds", "1", "--set", "student.max_epochs=2")  # nothing listens on that port
    assert failed.returncode == 1 and "topics, pgkd, seed 1: failed" in failed.stderr and "Missing:" in failed.stdout
    assert pgkd(*common, "--seeds", "one").returncode == 2
