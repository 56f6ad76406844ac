"""A run that is killed goes on where it was: nothing is paid twice, and the result is that of the undisturbed one."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pgkd_agent import files
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.pipeline import DistillResult, distill, resume
from pgkd_agent.runs.directory import RunDirectory
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.report import write_report
from pgkd_agent.runs.samples import samples_of
from pgkd_agent.teacher import chain
from pgkd_agent.teacher.calls.call_log import CallLog
from pgkd_agent.testing import ScriptedChatModel
from pgkd_agent.types import StepRecord
from tests.integration.conftest import FILLER, TOPICS, sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import OpenAIServer, completion, serve
from tests.integration.test_distill import FIRST, SECOND, rows_of

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)
STEPS = 2
LOCAL_STEPS = 1  # a prompt takes a real teacher some seconds
REQUESTS_PER_STEP = 2


def write_samples(_call: int, body: dict[str, Any]) -> Answer:
    """Samples that depend on the seed of the request alone, as a seeded model's do."""
    chosen = random.Random(body["seed"])
    label = body["response_format"]["json_schema"]["schema"]["properties"]["samples"]["items"]["properties"]["label"]
    samples = []
    for _ in range(2):
        words = chosen.sample(FILLER, 6) + chosen.sample(TOPICS[label["enum"][0]], 2)
        samples.append({"text": " ".join(words), "label": label["enum"][0]})
    return completion(json.dumps({"samples": samples}))


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with serve(write_samples) as running:
        yield running


def run_config(student: Path, server: OpenAIServer, **flags: object) -> PGKDConfig:
    return tiny_config(
        student,
        **{
            "teacher.spec": "openai:m",
            "teacher.base_url": server.base_url,
            "teacher.structured": "json_schema",
            "teacher.prompt": "per_class",
            "teacher.samples_per_request": 2,
            "teacher.max_concurrency": 1,  # a second call under way when the process is killed would be paid again
            "pgkd.num_kd_steps": STEPS,
            "student.refit": True,
            **flags,
        },
    )


def local_config(student: Path, model: Path | str) -> PGKDConfig:
    return tiny_config(
        student,
        **{
            "teacher.spec": f"local:{model}",
            "teacher.structured": "auto",
            "teacher.prompt": "per_class",
            "teacher.max_concurrency": 1,  # so that a reply depends on its request alone
            "teacher.samples_per_request": 1,
            "teacher.max_tokens": 48,
            **dict.fromkeys(("evidence.correct", "evidence.misclassified", "evidence.hard_negatives"), 1),
            "pgkd.pgkd_batch_size": REQUESTS_PER_STEP,
            "pgkd.num_kd_steps": LOCAL_STEPS,
        },
    )


@pytest.fixture(scope="module")
def undisturbed(
    server: OpenAIServer, tiny_student: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DistillResult, Path]:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    return distill(TRAIN, VALIDATION, TEST, config=run_config(tiny_student, server), out=out), out


FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__, "pgkd_agent.student.student", "pgkd_agent.runs.report.page"])
"""Torch is imported once for all processes that are killed."""


def be_killed(where: str, at: int, student: Path, teacher: str, run: Path) -> None:
    """A run that kills its own process."""
    times = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_at(real: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal times
            if when(*arguments):
                times += 1
                if times > at:
                    die()
            return real(*arguments, **options)

        return call

    class Killer(Observer):
        def on_step(self, record: StepRecord) -> None:
            if where == "after step" and record.kd_step == at:
                die()

    patch = pytest.MonkeyPatch()
    if where == "before parsing":
        patch.setattr(chain, "parse_samples", die_at(chain.parse_samples))
    if where == "after the last fit":
        patch.setattr(RunDirectory, "write_result", die_at(RunDirectory.write_result))
    if where == "while a model is saved":
        of_best = die_at(shutil.rmtree, lambda path, **_: str(path).endswith("best.old"))
        patch.setattr(files.shutil, "rmtree", of_best)
    is_local = teacher.endswith(".gguf")
    config = local_config(student, teacher) if is_local else run_config(student, OpenAIServer(teacher))
    distill(TRAIN, VALIDATION, TEST, config=config, out=run, observer=Killer())


POINTS = [
    ("after step", 2),
    ("before parsing", 3),
    ("while a model is saved", 1),
    ("after the last fit", 0),
]
"""With a provider that counts; `tests/torture` kills at every write."""


@pytest.mark.parametrize(("where", "at"), POINTS)
def test_killed_and_resumed(
    undisturbed: tuple[DistillResult, Path],
    server: OpenAIServer,
    tiny_student: Path,
    tmp_path: Path,
    where: str,
    at: int,
) -> None:
    before = len(server.requests)
    kill(where, at, tiny_student, server.base_url, tmp_path / "run")
    result = resume(tmp_path / "run")
    assert len(server.requests) - before == STEPS * REQUESTS_PER_STEP  # each was paid once
    same_outcome(result, tmp_path / "run", undisturbed)


def kill(where: str, at: int, student: Path, teacher: str, run: Path) -> None:
    process = FORKED.Process(target=be_killed, args=(where, at, student, teacher, run))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def calls_of(run: Path) -> list[tuple[str, str]]:
    """(key, reply) of every call that was made."""
    log = CallLog(run / "calls.sqlite")
    rows = [(row["key"], row["reply"]) for row in log]
    log.close()
    return rows


@pytest.mark.local_model
def test_a_run_with_a_real_local_teacher_is_killed_and_resumed(
    smollm2: Path, tiny_student: Path, tmp_path: Path
) -> None:
    expected = distill(TRAIN, VALIDATION, TEST, config=local_config(tiny_student, smollm2), out=tmp_path / "whole")
    calls = calls_of(tmp_path / "whole")
    run = tmp_path / "killed"
    kill("before parsing", 0, tiny_student, str(smollm2), run)
    made = calls_of(run)
    assert made == calls[: len(made)] and 0 < len(made) < len(calls)
    result = resume(run)
    assert calls_of(run) == calls  # each call was made once
    same_outcome(result, run, (expected, tmp_path / "whole"), LOCAL_STEPS)


def same_outcome(result: DistillResult, run: Path, undisturbed: tuple[DistillResult, Path], steps: int = STEPS) -> None:
    expected, other = undisturbed
    assert result.training.best_step == expected.training.best_step
    assert result.training.history == expected.training.history
    assert [step.validation for step in result.training.steps] == [step.validation for step in expected.training.steps]
    assert result.summary.teacher == expected.summary.teacher and result.summary.test == expected.summary.test
    for name in ("history.jsonl", "rejected.jsonl", "validation.jsonl"):
        assert rows_of(run / name) == rows_of(other / name), name
    assert [row["kd_step"] for row in rows_of(run / "steps.jsonl")] == list(range(steps + 1))
    for model in ("best", "last"):
        ours, theirs = (load_file(path / "models" / model / "model.safetensors") for path in (run, other))
        assert all(ours[name].equal(theirs[name]) for name in theirs), model


def test_a_finished_run_is_replayed_without_a_call_and_without_a_teacher(
    undisturbed: tuple[DistillResult, Path], tiny_student: Path, tmp_path: Path
) -> None:
    with serve(write_samples) as server:
        distill(TRAIN, VALIDATION, TEST, config=run_config(tiny_student, server), out=tmp_path / "run")
    stored = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.jsonl")}
    result = resume(tmp_path / "run")  # the server is gone
    same_outcome(result, tmp_path / "run", undisturbed)
    assert stored == {path: path.read_bytes() for path in stored}


def test_a_run_with_a_recipe_of_its_own_is_replayed(tiny_student: Path, server: OpenAIServer, tmp_path: Path) -> None:
    flags = {"student.learning_rate": (1e-3, 1e-2), "student.max_epochs": 3}
    config = run_config(tiny_student, server, **flags)
    first = distill(TRAIN, VALIDATION, config=config, out=tmp_path / "run").training.steps
    again = resume(tmp_path / "run").training.steps
    assert [step.validation.loss for step in again] == [step.validation.loss for step in first]
    assert {step.learning_rate for step in first} == {step.learning_rate for step in again} != {0.0}


@pytest.mark.parametrize("found", [None, 99])
def test_a_run_of_another_format_is_refused(found: int | None, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(json.dumps({"seed": 1} | ({} if found is None else {"format": found})))
    for read in (resume, write_report, samples_of):
        with pytest.raises(StorageError, match=f"has run format {found or 'none'}, expected 4"):
            read(tmp_path)  # type: ignore[operator]


def test_a_run_that_comes_out_differently_is_refused_and_left_as_it_was(
    server: OpenAIServer, tiny_student: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    distill(TRAIN, VALIDATION, TEST, config=run_config(tiny_student, server), out=run)
    steps = rows_of(run / "steps.jsonl")
    steps[0]["validation"]["loss"] += 0.001
    (run / "steps.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    (run / "checksums.jsonl").unlink()  # as on a machine with other results, where no file is damaged
    history, calls = (run / "history.jsonl").read_bytes(), len(server.requests)
    with pytest.raises(StorageError, match="step 0 came out differently"):
        resume(run)
    assert (run / "history.jsonl").read_bytes() == history and len(server.requests) == calls


def test_what_cannot_be_resumed_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run directory"):
        resume(tmp_path)


def test_a_chat_model_of_ones_own_has_to_be_given_again(config: PGKDConfig, tmp_path: Path) -> None:
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        first = distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="was made with ScriptedChatModel; give it again"):
        resume(tmp_path / "run")
    with ScriptedChatModel([]) as teacher:
        assert resume(tmp_path / "run", teacher=teacher).training.history == first.training.history
