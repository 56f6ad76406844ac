"""The main job: labelled rows and an LLM in, a better and saved classifier out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import BudgetSettings, PGKDConfig, StudentSettings
from pgkd_agent.data import PRESETS, Task, load_preset, prepare_task, read_examples, read_taxonomy
from pgkd_agent.errors import ConfigError
from pgkd_agent.loop.algorithm import run_pgkd
from pgkd_agent.loop.guardrails import Check, Guardrails
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.runs.directory import RunDirectory, read_run
from pgkd_agent.runs.recorder import Bill, Observer, StepKeeper, write_pages
from pgkd_agent.runs.report import is_current
from pgkd_agent.runs.summary import RunResult, summarize
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import (
    Hooks,
    OpenTeacher,
    members,
    open_teacher,
    prompt_variant,
    teacher_prompt,
)
from pgkd_agent.teacher.prompting.templates import PromptTemplate
from pgkd_agent.types import Evaluation, Example, StepRecord

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pgkd_agent.student.classifier import StudentClassifier
    from pgkd_agent.student.student import TorchStudent


@dataclass(frozen=True)
class DistillResult:
    """The outcome of a run.

    Attributes:
        steps: A record per model; `steps[0]` is the plain student.
        best_step: The model that `classifier` is: the one with the lowest validation loss.
        before, after: Plain student and best model on the test rows; None without test rows.
        seconds: Wall time by part: `teacher`, `student`, `evidence`, `rest`.
        run: The run directory, or None.
        summary: The same in short, as in the run's `result.json`.
    """

    classifier: StudentClassifier
    task: Task
    steps: tuple[StepRecord, ...]
    best_step: int
    history: History
    stopped_early: bool
    before: Evaluation | None
    after: Evaluation | None
    seconds: dict[str, float]
    run: Path | None
    summary: RunResult


def load_task(
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    labels: Any = None,
    config: PGKDConfig | None = None,
) -> Task:
    """Read rows (files, data frames, datasets, lists) and make a task of them, as `config` says.

    Args:
        train: None takes the preset `config.data.dataset`, whose test rows and labels stand in for those not given.
    Raises:
        DataError: See `read_examples`, `read_taxonomy`, `load_preset` and `prepare_task`.
        ConfigError: Neither or both of `train` and a preset.
    """
    config = config or PGKDConfig()
    settings = config.data
    if (train is None) == (settings.dataset is None):
        raise ConfigError("give either labelled rows (--train) or one of the paper's datasets (--dataset)")

    def read(rows: Any) -> list[Example]:
        return read_examples(rows, settings.text_column, settings.label_column, settings.skip_incomplete)

    taxonomy = None if labels is None else read_taxonomy(labels)
    description = settings.task_description
    held_out: Sequence[Example] = () if test is None else read(test)
    if settings.dataset is not None:
        loaded = load_preset(settings.dataset, settings.data_dir)
        rows: Sequence[Example] = loaded.train
        taxonomy = taxonomy or loaded.taxonomy
        held_out = held_out or loaded.test
        description = description or PRESETS[settings.dataset].task
    else:
        rows = read(train)
    return prepare_task(
        rows,
        None if validation is None else read(validation),
        held_out,
        taxonomy=taxonomy,
        rows=settings.rows,
        test_rows=settings.test_rows,
        validation_share=settings.validation_share,
        seed=config.seed,
        description=description,
    )


def distill(
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    labels: Any = None,
    *,
    teacher: str | BaseChatModel | Teacher | None = None,
    config: PGKDConfig | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    checks: Mapping[str, Check] | None = None,
) -> DistillResult:
    """Run PGKD.

    Args:
        train: A file (CSV, TSV, JSONL, Parquet), data frame, `Dataset`, or list of mappings or pairs; None takes
            the preset `config.data.dataset`.
        validation: As `train`; None splits `train`.
        test: As `train`; only ever evaluated, never shown to student or teacher.
        labels: Taxonomy file, list of names, or mapping of name to description; None takes the labels of
            `train`.
        teacher: Overrides `config.teacher.spec`: a spec, a LangChain chat model, or an object with
            `write(request)`.
        out: New run directory; None keeps nothing on disk.
        checks: Guardrails of your own, by name, after the built-in ones: each takes the text in normal form, its label
            and what is known (`ScreenState`), and returns the reason for a rejection or None.
    Raises:
        PGKDError: See `pgkd_agent.errors`; all that can be checked is checked before the first fit.
    """
    config = config or PGKDConfig()
    if isinstance(teacher, str):
        config = config.changed({"teacher.spec": teacher})
        teacher = None
    return run(load_task(train, validation, test, labels, config), config, teacher, out, observer, checks)


def run(
    task: Task,
    config: PGKDConfig,
    teacher: BaseChatModel | Teacher | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    checks: Mapping[str, Check] | None = None,
) -> DistillResult:
    """`distill` for a task that is already read; `num_kd_steps` 0 trains the plain student."""
    return _run(task, config, teacher, None if out is None else Path(out), observer, checks, resumed=False)


def resume(
    path: Path | str,
    teacher: str | BaseChatModel | Teacher | None = None,
    observer: Observer | None = None,
    budget: BudgetSettings | None = None,
    checks: Mapping[str, Check] | None = None,
) -> DistillResult:
    """Continue a run that was stopped, by replay: the student is trained again, answered calls are not repeated.

    The result is that of the undisturbed run, on the same machine with the same number of threads. A finished run is
    replayed without a call.

    Args:
        teacher: As it was given to `distill`; None where it was named, by a spec or in the settings. An object with
            `write` is asked again for every step: what it wrote is in no call log.
        budget: Other caps than the run had: one that a cap ended goes on under a higher one.
        checks: As they were given to `distill`.
    Raises:
        ConfigError: The run was made with a teacher that is an object, and none is given; or with other checks; or its
            prompt is another by now.
        StorageError: It is no run directory, or a damaged one; or a step comes out differently here. Nothing in the
            directory was changed then.
    """
    stored = read_run(Path(path))
    made_with, named = stored.meta["teacher"], ", ".join(member.spec for member in members(stored.config.teacher))
    if isinstance(teacher, str):
        if teacher != named:
            raise ConfigError(f"{path} was made with {made_with}, not with {teacher}; start a new run")
        teacher = None
    if teacher is None and stored.config.pgkd.num_kd_steps and made_with != named:
        raise ConfigError(f"{path} was made with {made_with}; give it again: resume(path, teacher=...)")
    if sorted(checks or ()) != (made_with_checks := stored.meta.get("checks", sorted(checks or ()))):
        named = ", ".join(made_with_checks) or "none"
        raise ConfigError(f"{path} was made with checks: {named}; give the same: resume(path, checks=...), in Python")
    prompt = stored.meta["prompt"]
    if teacher_prompt(stored.config.teacher).hash != prompt["sha256"]:
        raise ConfigError(
            f"prompt {prompt['name']!r} is another than when {path} was made; put it back, or start a new run"
        )
    config = stored.config if budget is None else stored.config.changed({"budget": budget})
    return _run(stored.task, config, teacher, Path(path), observer, checks, resumed=True)


def _run(
    task: Task,
    config: PGKDConfig,
    teacher: BaseChatModel | Teacher | None,
    out: Path | None,
    observer: Observer | None,
    checks: Mapping[str, Check] | None,
    resumed: bool,
) -> DistillResult:
    from pgkd_agent.student.recipe import recipe_for
    from pgkd_agent.student.student import TorchStudent

    started = time.perf_counter()
    observer = observer or Observer()
    config = _resolved(config, recipe_for(config.student).decided(config.student))
    template = teacher_prompt(config.teacher)
    prices = load_prices(config.teacher.prices)
    budget = Budget(config.budget, prices)
    student = TorchStudent(config.student, task.taxonomy, config.seed, observer.on_epoch)
    held_out = texts_of((*task.validation, *task.test))
    screener = Guardrails(config.guardrails, task.taxonomy, held_out, checks)
    with ExitStack() as stack:
        directory = None
        if out is not None:
            directory = RunDirectory.reopen(out) if resumed else RunDirectory.create(out)
            stack.callback(directory.close)
            directory.require_space(student.size_bytes)
        listener = StepKeeper(task, student, directory, budget, observer, config.student)
        bill = Bill(task, config, prices, observer)
        hooks = Hooks(observer.on_request, bill.on_plan, directory.add_transcript if directory else None)
        log, stored_steps = (directory.calls, directory.num_stored_steps) if directory else (None, 0)
        with open_teacher(teacher, template, task, config, screener, budget, log, hooks, stored_steps) as opened:
            if opened.models:
                bill.at_start(opened, resumed)
            if not resumed:
                if directory:
                    directory.write_start(config, _meta(config, task, template, opened, student, checks or {}), task)
                opened.check()
            if directory:
                directory.keep()
            result = run_pgkd(task, student, opened.teacher, opened.screener, config, listener)
        test = listener.before_after(result.best_step)
        calibration = listener.calibration()
        seconds = _seconds(result.steps, time.perf_counter() - started)
        summary = summarize(config, result, test, calibration, seconds, opened.name, prices, bill.estimate)
        if directory:
            directory.write_result(asdict(summary), calibration)
            if not is_current(directory.path):
                write_pages(directory.path)
    observer.on_result(summary)
    return DistillResult(
        classifier=student.classifier(calibration.temperature),
        task=task,
        steps=result.steps,
        best_step=result.best_step,
        history=result.history,
        stopped_early=result.stopped_early,
        before=test.before if test else None,
        after=test.after if test else None,
        seconds=seconds,
        run=directory.path if directory else None,
        summary=summary,
    )


def _resolved(config: PGKDConfig, student: StudentSettings) -> PGKDConfig:
    """The settings with everything decided that None left open."""
    prompt = prompt_variant(config.teacher)
    return config.changed({"student": student, "teacher.prompt": prompt, "guardrails": config.step_guardrails})


def _meta(
    config: PGKDConfig,
    task: Task,
    template: PromptTemplate,
    teacher: OpenTeacher,
    student: TorchStudent,
    checks: Iterable[str],
) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "teacher": teacher.name,
        "prompt": {"name": template.name, "sha256": template.hash},
        "checks": sorted(checks),
        "student": {"name": config.student.name, **student.description},
        "rows": {"train": len(task.train), "validation": len(task.validation), "test": len(task.test)},
    }


def _seconds(steps: Iterable[StepRecord], total: float) -> dict[str, float]:
    records = list(steps)
    parts = {
        part: sum(getattr(record, f"{part}_seconds") for record in records)
        for part in ("teacher", "student", "evidence")
    }
    return {**parts, "rest": max(total - sum(parts.values()), 0.0)}
