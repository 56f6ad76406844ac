"""Run directories as a run leaves them, made in a moment: the loop, the guardrails and the files are the real ones,
student and teacher are made up.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.data import Task
from pgkd_agent.loop.algorithm import run_pgkd
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.runs.directory import RunDirectory
from pgkd_agent.runs.evaluation import BothModels, before_after, calibrate, row_predictions
from pgkd_agent.runs.observer import Observer, Observers
from pgkd_agent.runs.recorder import RunRecorder, environment
from pgkd_agent.runs.summary import summarize
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, CallLog, RawReply
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.types import (
    Example,
    FitResult,
    GeneratedSample,
    Label,
    Probabilities,
    TeacherReply,
    TeacherRequest,
    TokenUsage,
)

TEACHER = "openai:gpt-4o-mini"
USAGE = TokenUsage(1000, 200)
WORDS = ["parcel", "card", "transfer", "refund", "queue", "ticket", "screen", "battery", "window", "engine", "garden"]

Write = Callable[[int], Sequence[tuple[str, str]]]
"""The (text, label) pairs of a step."""


class MadeUpStudent:
    """Right on a share of the rows that is given for each step; which rows is decided by their texts."""

    def __init__(self, task: Task, names: Sequence[str], skills: Sequence[float], test_skills: Sequence[float]) -> None:
        self._known = {row.text: (row.label, skills) for row in (*task.train, *task.validation)}
        self._known |= {row.text: (row.label, test_skills) for row in task.test}
        self._names, self._step = names, 0

    def reset(self) -> None: ...

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        self._step = kd_step
        return FitResult(1, 1, self.predict([row.text for row in rows]), 1, 0.0, 1e-4)

    def refit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> None:
        self._step = kd_step

    def predict(self, texts: Sequence[str]) -> Probabilities:
        count = len(self._names)
        table = np.full((len(texts), count), 0.4 / max(count - 1, 1))
        for row, text in zip(table, texts, strict=True):
            luck = random.Random(text)
            label, skills = self._known.get(text, (self._names[0], (1.0,) * 99))
            right = self._names.index(label)
            row[right if luck.random() < skills[self._step] else (right + 1 + luck.randrange(2)) % count] = 0.6
        found: Probabilities = table / table.sum(axis=1, keepdims=True)
        return found

    def snapshot(self) -> int:
        return self._step

    def restore(self, snapshot: Any) -> None:
        self._step = snapshot

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)


class MadeUpTeacher:
    def __init__(self, write: Write, log: CallLog) -> None:
        self._write, self._log = write, log

    def write(self, request: TeacherRequest) -> TeacherReply:
        samples = [{"text": text, "label": label} for text, label in self._write(request.kd_step)]
        messages = [
            {"role": "system", "content": "You write training texts."},
            {"role": "human", "content": f"Write {len(samples)} texts.\n{request.task_description}"},
        ]
        call = Call(request.kd_step, 0, 0, TEACHER, "hash", {"temperature": 0.8}, messages)
        reply = RawReply(json.dumps({"samples": samples}), "stop", USAGE, 1.5)
        self._log.end(self._log.begin(call.key, call, USAGE), ANSWERED, USAGE, reply)
        shown = frozenset(row.text for row in request.few_shot)
        return TeacherReply(tuple(GeneratedSample(**one) for one in samples), shown_texts=shown, usage=USAGE)


def rows_of(names: Sequence[str], per_class: int, seed: int) -> tuple[Example, ...]:
    luck = random.Random(seed)
    return tuple(
        Example(f"{' '.join(luck.sample(WORDS, 5))} {number} {seed}", name)
        for number in range(per_class)
        for name in names
    )


def make_run(
    path: Path,
    names: Sequence[str] = ("fruit", "tools", "animals", "weather"),
    skills: Sequence[float] = (0.5, 0.7, 0.9),
    test_skills: Sequence[float] | None = None,
    write: Write | None = None,
    test_rows: int = 20,
    description: str = "Messages to a shop.",
    steps_before_it_is_stopped: int | None = None,
    **settings: Any,
) -> Path:
    """
    Args:
        skills: Share of rows that are right, by step; the plain student's first. `test_skills` is that of test rows.
        test_rows: Of each class.
    """
    labels = tuple(Label(name) for name in names)
    task = Task(rows_of(names, 4, 0), rows_of(names, 5, 1), rows_of(names, test_rows, 2), labels, description)
    config = build_config(
        flags={
            "student.name": "made-up", "teacher.spec": TEACHER, "teacher.prompt": "paper",
            "pgkd.num_kd_steps": len(skills) - 1, "pgkd.pgkd_batch_size": 10_000, **settings,
        }
    )  # fmt: skip
    student: Any = MadeUpStudent(task, names, skills, test_skills or skills)
    with closing(RunDirectory.create(path)) as directory:
        _run(directory, task, config, student, write or _samples(task, names))
    if steps_before_it_is_stopped is not None:
        _stop(path, steps_before_it_is_stopped)
    return path


def _samples(task: Task, names: Sequence[str]) -> Write:
    """Two that are fine, a copy, one that is nearly a copy, one nearly a test row, and one of no class."""
    held_out = (*task.test, *task.validation)[0]

    def write(step: int) -> list[tuple[str, str]]:
        return [
            (f"a mango and a {WORDS[step]} on the market", names[0]),
            (f"pass me the {WORDS[-step]}, then hammer and pliers", names[-1]),
            (task.train[0].text, task.train[0].label),
            (f"{task.train[1].text}{step}", task.train[1].label),
            (f"{held_out.text}{step}", held_out.label),
            (f"a spaceship of step {step}", "space"),
        ]

    return write


def _run(directory: RunDirectory, task: Task, config: PGKDConfig, student: Any, write: Write) -> None:
    recorder = RunRecorder(directory, student)
    meta = {
        **environment(), "seed": 0, "teacher": TEACHER, "checks": [], "student": {"name": config.student.name},
        "prompt": {"name": "paper", "sha256": "0" * 64},
        "rows": {name: len(getattr(task, name)) for name in ("train", "validation", "test")},
    }  # fmt: skip
    recorder.begin(config, meta, task)
    recorder.keep()
    models = BothModels(task, student, config.student, Observer())
    told = Observers([recorder, models])
    screener = Guardrails(config.guardrails, task.taxonomy, [row.text for row in (*task.validation, *task.test)])
    with closing(CallLog(directory.calls)) as log:
        training = run_pgkd(task, student, MadeUpTeacher(write, log), screener, config, told)
    tested = models.tested(training)
    told.on_predictions(row_predictions(task, tested))
    outcome = training, tested.last_fit, before_after(task, tested), calibrate(task, tested)
    told.on_result(summarize(config, *outcome, 9.0, TEACHER, load_prices(), None))


def _stop(path: Path, steps: int) -> None:
    """As a run is that was killed after so many steps."""
    (path / "result.json").unlink()
    (path / "checksums.jsonl").unlink()  # of files that are cut short here
    for name in ("steps", "history", "rejected"):
        file = path / f"{name}.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(line for line in lines if json.loads(line)["kd_step"] <= steps), encoding="utf-8")
    shutil.rmtree(path / "models")
