"""The run directory: what it stores, and when it may change what is stored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.files import append_lines, read_lines, write_whole
from pgkd_agent.runs.checksums import note
from pgkd_agent.runs.directory import RunDirectory
from pgkd_agent.runs.stored import START_FILES, read_run
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, CallLog
from pgkd_agent.types import Example, Label, StepRecord, TokenUsage
from tests.unit.builders import evaluation

CALIBRATION = {"temperature": 1.5}


class Weights:
    """A student whose weights are a word."""

    def __init__(self) -> None:
        self.weights = ""

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text(self.weights)

    def snapshot(self) -> Any:
        return self.weights

    def restore(self, snapshot: Any) -> None:
        self.weights = snapshot


def record(kd_step: int, loss: float, is_best: bool, stopped_by: str = "") -> StepRecord:
    return StepRecord(kd_step, evaluation(loss), is_best, 1, 10, stopped_by=stopped_by)


def add(directory: RunDirectory, step: StepRecord, weights: str) -> None:
    student = Weights()
    student.weights = weights
    directory.add_step(step, None, student)
    assert student.weights == weights  # the run goes on with them


def best(path: Path) -> str:
    return (path / "models" / "best" / "weights").read_text()


def contents(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def capped(tmp_path: Path) -> Path:
    """A run that a cap ended in step 1, which then was the best one."""
    path = tmp_path / "run"
    directory = RunDirectory.create(path)
    directory.keep()
    add(directory, record(0, 1.0, True), "plain")
    add(directory, record(1, 0.5, True, "max_calls"), "cut short")
    directory.add_transcript(1, [{"role": "ai"}])
    directory.write_result({"best_step": 1, "calibration": CALIBRATION})
    directory.close()
    return path


@contextmanager
def reopened(path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory.reopen(path)
    try:
        yield directory
    finally:
        directory.close()


def test_a_resumed_run_changes_nothing_before_its_first_new_step(capped: Path) -> None:
    before = contents(capped)
    with reopened(capped) as directory:
        assert directory.num_stored_steps == 1
        add(directory, record(0, 1.0, True), "plain")
        directory.write_result({"best_step": 0, "calibration": {"temperature": 2.0}})
    assert contents(capped) == before
    assert best(capped) == "cut short"  # as its steps.jsonl and result.json say


def test_the_outcome_goes_before_the_model_that_it_tells_of(capped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        assert not (capped / "result.json").exists()
        raise KeyboardInterrupt

    with reopened(capped) as directory:
        add(directory, record(0, 1.0, True), "plain")
        monkeypatch.setattr(directory, "_save_models", killed)
        with pytest.raises(KeyboardInterrupt):
            add(directory, record(1, 0.7, True), "made anew")


def test_a_result_that_was_lost_is_made_anew_and_a_model_that_was_removed_is_not(capped: Path) -> None:
    (capped / "result.json").unlink()
    shutil.rmtree(capped / "models")  # as one does who needs the space
    with reopened(capped) as directory:
        directory.write_result({"best_step": 0, "calibration": CALIBRATION})
    assert json.loads((capped / "result.json").read_text()) == {"best_step": 0, "calibration": CALIBRATION}
    assert not (capped / "models").exists()


@pytest.mark.parametrize("interruptions", [0, 2])
def test_a_step_made_anew_replaces_the_one_that_a_cap_cut_short(capped: Path, interruptions: int) -> None:
    """Also where it is no longer the best one: then the plain student is, whose weights were overwritten before."""
    for _ in range(interruptions):
        with reopened(capped) as directory:
            add(directory, record(0, 1.0, True), "plain")
    with reopened(capped) as directory:
        add(directory, record(0, 1.0, True), "plain")
        directory.add_transcript(1, [{"role": "human"}])
        add(directory, record(1, 1.5, False), "whole")
        assert best(capped) == "plain" and (capped / "models" / "last" / "weights").read_text() == "whole"
        assert [step["stopped_by"] for step in read_lines(capped / "steps.jsonl")] == ["", ""]
        assert read_lines(capped / "transcripts.jsonl") == [{"kd_step": 1, "messages": [{"role": "human"}]}]
        assert not (capped / "result.json").exists()
        add(directory, record(2, 0.7, True), "more")
        assert best(capped) == "more" and len(read_lines(capped / "steps.jsonl")) == 3


def test_half_a_line_of_a_stopped_run_is_dropped(capped: Path) -> None:
    with (capped / "steps.jsonl").open("a") as file:
        file.write('{"kd_step": 2, "vali')
    with reopened(capped) as directory:
        add(directory, record(0, 1.0, True), "plain")
        add(directory, record(1, 0.4, True), "whole")
    assert [step["kd_step"] for step in read_lines(capped / "steps.jsonl")] == [0, 1]


def test_a_step_that_comes_out_differently_changes_nothing(capped: Path) -> None:
    before = contents(capped)
    with reopened(capped) as directory, pytest.raises(StorageError, match="step 0 came out differently"):
        add(directory, record(0, 1.001, True), "other")
    assert contents(capped) == before


def test_a_damaged_file_is_found_when_the_run_is_opened(capped: Path) -> None:
    (capped / "transcripts.jsonl").write_text("[1,\n")
    with pytest.raises(StorageError, match=r"transcripts\.jsonl is not what was written"):
        RunDirectory.reopen(capped)


def test_one_process_works_on_a_run_at_a_time(capped: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import pgkd_agent.runs.directory as module; "
        "module.RunDirectory.%s(Path(sys.argv[1]))"
    )

    def other(method: str, path: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script % method, str(path)], capture_output=True, text=True, timeout=60
        )
        return done.stderr

    with reopened(capped):
        assert "another process works on run directory" in other("reopen", capped)
    assert other("reopen", capped) == ""
    new = RunDirectory.create(tmp_path / "new")
    assert "another process works on" in other("create", tmp_path / "new")
    new.close()
    assert not (tmp_path / "new").exists()


def test_a_surrogate_is_stored_as_its_escape(tmp_path: Path) -> None:
    append_lines(tmp_path / "rows.jsonl", [{"text": "half \ud83d"}])
    assert read_lines(tmp_path / "rows.jsonl") == [{"text": "half \ud83d"}]


def failing(error: BaseException) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "made" / "file.json"
    write_whole(file, "one")
    for failure, raised in (
        (OSError(28, "No space left on device"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with monkeypatch.context() as broken, pytest.raises(raised):
            broken.setattr("pgkd_agent.files.os.replace", failing(failure))
            write_whole(file, "two")
        assert file.read_text() == "one" and list(file.parent.iterdir()) == [file]
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        write_whole(file / "below", "")
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        write_whole(tmp_path / "made", "")
    write_whole(file, "half \ud83d")
    assert file.read_text() == "half \\ud83d"


def test_many_threads_may_write_the_same_file(tmp_path: Path) -> None:
    file, contents = tmp_path / "page.html", [str(number) * 10_000 for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_whole(file, contents[number % 4]), range(40)))
    assert file.read_text() in contents and list(tmp_path.iterdir()) == [file]


def test_a_run_that_did_not_begin_leaves_nothing(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "new" / "run")
    (tmp_path / "new" / "run" / "meta.json").write_text("{}")
    directory.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        RunDirectory.create(tmp_path / "new" / ("x" * 300) / "run")
    with pytest.raises(ConfigError, match="a file, not a folder"):
        RunDirectory.create(tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    kept = RunDirectory.create(tmp_path / "run")
    (tmp_path / "run" / "meta.json").write_text("{}")
    kept.keep()
    kept.close()
    assert json.loads((tmp_path / "run" / "meta.json").read_text()) == {}
    with pytest.raises(ConfigError, match="exists already"):
        RunDirectory.create(tmp_path / "run")


def test_what_a_run_starts_from_is_there_whether_or_not_it_has_a_pool(tmp_path: Path) -> None:
    rows = (Example("a", "x"), Example("b", "y"))
    task = Task(rows, rows, (), (Label("x"), Label("y")))
    RunDirectory.create(tmp_path / "run").write_start(PGKDConfig(), {}, task)
    written = {file.name for file in (tmp_path / "run").iterdir()}
    assert {*START_FILES} - written == {"calls.sqlite"}


def test_a_run_that_was_killed_before_it_began_is_begun_anew(tmp_path: Path) -> None:
    rows = (Example("a", "x"), Example("b", "y"))
    killed = RunDirectory.create(tmp_path / "run")
    killed.write_start(PGKDConfig(), {}, Task(rows, rows, (), (Label("x"), Label("y")), unlabelled=("a text",)))
    killed._lock.release()
    (tmp_path / "run" / "meta.json").rename(tmp_path / "run" / "meta.json.0123abcd.new")
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_start(PGKDConfig(), {}, Task(rows, rows, (), (Label("x"), Label("y"))))
    directory.keep()
    directory.close()
    assert read_run(tmp_path / "run").task.unlabelled == ()  # nothing of the other one
    theirs = tmp_path / "theirs"  # files of these names that no run has made
    theirs.mkdir()
    (theirs / "config.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        RunDirectory.create(theirs)


def test_a_best_model_that_a_killed_step_left_behind_is_put_back(tmp_path: Path) -> None:
    """Under other caps, or at another time, the step may come out differently."""
    directory = RunDirectory.create(tmp_path / "run")
    directory.keep()
    add(directory, record(0, 1.0, True), "plain")
    killed = Weights()
    killed.weights = "better"
    directory._save_models(record(1, 0.5, True), killed)
    directory.close()
    (tmp_path / "run" / "models" / "best.old").mkdir()
    with reopened(tmp_path / "run") as again:
        add(again, record(0, 1.0, True), "plain")
        add(again, record(1, 1.5, False), "worse")
    assert best(tmp_path / "run") == "plain"
    assert {path.name for path in (tmp_path / "run" / "models").iterdir()} == {"best", "last"}


@pytest.mark.parametrize("name", ["steps.jsonl", "result.json", "checksums.jsonl"])
def test_a_turned_bit_is_named_and_nothing_is_done(capped: Path, name: str) -> None:
    (capped / "steps.jsonl.0123abcd.new").write_text("")
    content = bytearray((capped / name).read_bytes())
    content[len(content) // 3] ^= 1
    (capped / name).write_bytes(content)
    before = contents(capped)
    with pytest.raises(StorageError, match=f"damaged: .*|{name} is damaged"):
        RunDirectory.reopen(capped)
    assert contents(capped) == before
    (capped / "checksums.jsonl").unlink()  # as one does who means it
    if name == "result.json":
        RunDirectory.reopen(capped).close()
        assert not (capped / "steps.jsonl.0123abcd.new").exists()


def test_killed_between_checksum_and_file_a_run_goes_on_each_time(capped: Path) -> None:
    for name in ("result.json", "steps.jsonl", "result.json", "steps.jsonl"):
        note(capped, name, b"never written")
        RunDirectory.reopen(capped).close()
    with (capped / "checksums.jsonl").open("a") as file:
        file.write('{"file": "ste')  # killed within that line
    RunDirectory.reopen(capped).close()
    steps = (capped / "steps.jsonl").read_bytes()
    note(capped, "steps.jsonl", steps + b"a line to come")
    (capped / "steps.jsonl").write_bytes(steps + b"a line")
    RunDirectory.reopen(capped).close()
    note(capped, "steps.jsonl", steps + b"a line to come")
    note(capped, "result.json", b"which is noted when the line is there")
    with pytest.raises(StorageError, match=r"steps.jsonl is not what was written"):
        RunDirectory.reopen(capped)


def test_a_run_whose_last_rows_are_cut_off_is_damaged(capped: Path) -> None:
    content = (capped / "transcripts.jsonl").read_bytes()
    (capped / "transcripts.jsonl").write_bytes(content[:-5])  # as half a line of a killed process is
    with pytest.raises(StorageError, match=r"transcripts.jsonl is not what was written"):
        RunDirectory.reopen(capped)


@pytest.mark.parametrize(("outcome", "is_kept"), [(ANSWERED, True), ("AUTH", False)])
def test_a_run_that_was_stopped_after_its_first_answer_keeps_what_was_paid(
    tmp_path: Path, outcome: str, is_kept: bool
) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    (tmp_path / "run" / "meta.json").write_text("{}")
    log = CallLog(directory.calls)
    log.end(log.begin("key", Call(0, 0, 0, "m", "hash", {}, ()), TokenUsage(9, 9)), outcome, TokenUsage(1, 1))
    log.close()
    directory.close()
    assert directory.calls.exists() is is_kept and (tmp_path / "run").exists() is is_kept
