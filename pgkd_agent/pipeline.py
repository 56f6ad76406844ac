"""The main job: labelled rows and an LLM in, a better and saved classifier out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pgkd_agent.config import BudgetSettings, PGKDConfig, StudentSettings
from pgkd_agent.data import (
    PRESETS,
    Labels,
    Rows,
    Task,
    Texts,
    load_preset,
    prepare_task,
    read_examples,
    read_pool,
    read_taxonomy,
    with_splits,
)
from pgkd_agent.errors import ConfigError
from pgkd_agent.loop.algorithm import PGKDResult, run_pgkd
from pgkd_agent.loop.guardrails import Check, Guardrails
from pgkd_agent.loop.history import texts_of
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.runs.bill import Bill
from pgkd_agent.runs.evaluation import BothModels, before_after, calibrate, row_predictions
from pgkd_agent.runs.observer import Observer, Observers
from pgkd_agent.runs.recorder import recording, run_meta
from pgkd_agent.runs.stored import read_run, require_new
from pgkd_agent.runs.summary import RunResult, summarize
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.labelling import Pool
from pgkd_agent.teacher.opening import members, open_teacher, prompt_variant, teacher_prompt, texts_to_label
from pgkd_agent.types import Example

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pgkd_agent.student.classifier import StudentClassifier
    from pgkd_agent.student.student import TorchStudent


@dataclass(frozen=True)
class DistillResult:
    """The outcome of a run.

    Attributes:
        classifier: The best model, which is a LangChain Runnable.
        training: What Algorithm 1 came to: its `steps` (a record per model, the plain student first), `best_step` (the
            model that `classifier` is), `history` (all training rows) and whether it `stopped_early`.
        summary: The same in short, with the figures on the test rows, as in the run's `result.json`.
        run: The run directory, or None where nothing is kept.
    """

    classifier: StudentClassifier
    task: Task = field(repr=False)
    training: PGKDResult = field(repr=False)
    summary: RunResult
    run: Path | None


def load_task(
    train: Rows | None = None,
    validation: Rows | None = None,
    test: Rows | None = None,
    labels: Labels | None = None,
    config: PGKDConfig | None = None,
    unlabelled: Texts | None = None,
) -> Task:
    """Read rows (files, data frames, datasets, lists) and make a task of them, as `config` says.

    Args:
        train: Of a DatasetDict, the split of that name; its others stand in for what is not given. None takes the
            preset `config.data.dataset`, whose test rows and labels stand in for those not given.
    Raises:
        DataError: See `read_examples`, `read_taxonomy`, `load_preset` and `prepare_task`.
        ConfigError: Neither or both of `train` and a preset.
    """
    config = config or PGKDConfig()
    settings = config.data
    train, validation, test = with_splits(train, validation, test)

    def read(rows: Rows) -> list[Example]:
        return read_examples(rows, settings.text_column, settings.label_column, settings.skip_incomplete)

    taxonomy = None if labels is None else read_taxonomy(labels)
    description = settings.task_description
    held_out: Sequence[Example] = () if test is None else read(test)
    if train is not None and settings.dataset is None:
        rows: Sequence[Example] = read(train)
    elif train is None and settings.dataset is not None:
        loaded = load_preset(settings.dataset, settings.data_dir)
        rows = loaded.train
        taxonomy = taxonomy or loaded.taxonomy
        held_out = held_out or loaded.test
        description = description or PRESETS[settings.dataset].task
    else:
        raise ConfigError("give either labelled rows (`train`) or one of the paper's datasets (`data.dataset`)")
    task = prepare_task(
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
    return task if unlabelled is None else task.with_unlabelled(read_pool(unlabelled, settings.text_column))


def distill(
    train: Rows | None = None,
    validation: Rows | None = None,
    test: Rows | None = None,
    labels: Labels | None = None,
    *,
    student: str | None = None,
    teacher: str | BaseChatModel | Teacher | None = None,
    steps: int | None = None,
    seed: int | None = None,
    config: PGKDConfig | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    checks: Mapping[str, Check] | None = None,
    unlabelled: Texts | None = None,
) -> DistillResult:
    """Train a small classifier on labelled rows, and on what an LLM teacher writes for it, step by step.

    Example:
        ```python
        result = distill("train.csv", test="test.csv", teacher="openai:gpt-4o-mini", steps=3, out="runs/first")
        print(result.summary.verdict)
        result.classifier.invoke("my card does not work")
        ```

    Args:
        train: Labelled rows. None takes the preset that `config.data.dataset` names.
        validation: Rows that choose the model. None takes a share of `train`.
        test: Rows that are only ever evaluated, and never shown to student or teacher.
        labels: The classes in their order, with descriptions for the teacher. None takes the labels of `train`.
        student: `minilm` or `mpnet`, the id of a model on the hub, or a local folder.
        teacher: A spec such as `openai:NAME`, a LangChain chat model, or an object with `write(request)`.
        steps: How often the teacher writes, at most. 0 trains the plain student alone.
        seed: All randomness derives from it.
        config: All settings. What is named here (`student`, `teacher`, `steps`, `seed`) overrides them.
        out: The run directory, which must be new. None keeps nothing on disk.
        observer: Is told how the run goes.
        checks: Guardrails of your own, by name, which come after the built-in ones. Each takes the text in normal form,
            its label and what is known (`ScreenState`), and returns the reason for a rejection or None.
        unlabelled: Texts without labels (a file, or strings). Each step the teacher also labels those that the student
            is least sure of, `config.pgkd.labels_per_step` of them.

    Returns:
        The best model, and how it came about.

    Raises:
        PGKDError: See `pgkd_agent.errors`. All that can be checked is checked before the first fit.
    """
    spec, given = (teacher, None) if isinstance(teacher, str) else (None, teacher)
    named = {"student.name": student, "teacher.spec": spec, "pgkd.num_kd_steps": steps, "seed": seed}
    config = (config or PGKDConfig()).changed({key: value for key, value in named.items() if value is not None})
    return run(load_task(train, validation, test, labels, config, unlabelled), config, given, out, observer, checks)


def run(
    task: Task,
    config: PGKDConfig,
    teacher: BaseChatModel | Teacher | None = None,
    out: Path | str | None = None,
    observer: Observer | None = None,
    checks: Mapping[str, Check] | None = None,
    cache_counts: bool = False,
) -> DistillResult:
    """`distill` for a task that is already read; `num_kd_steps` 0 trains the plain student.

    Args:
        cache_counts: See `Budget`.
    """
    path = None if out is None else Path(out)
    return _run(task, config, teacher, path, observer, checks, cache_counts, resumed=False)


def resume(
    path: Path | str,
    teacher: str | BaseChatModel | Teacher | None = None,
    observer: Observer | None = None,
    budget: BudgetSettings | None = None,
    checks: Mapping[str, Check] | None = None,
    cache_counts: bool = False,
) -> DistillResult:
    """Continue a run that was stopped, by replay: the student is trained again, answered calls are not repeated.

    The result is that of the undisturbed run, on the same machine with as many threads. A finished run asks nothing.

    Args:
        teacher: As it was given to `distill`; None where it was named, by a spec or in the settings. An object with
            `write` is asked again for every step: what it wrote is in no call log.
        budget: Other caps than the run had: one that a cap ended goes on under a higher one.
        checks: As they were given to `distill`.
        cache_counts: See `Budget`.

    Raises:
        ConfigError: It was made with a teacher that is an object, with other checks or another prompt, or is no run.
        StorageError: It is a damaged one; or a step comes out differently here, and nothing in it was changed.
    """
    stored = read_run(Path(path))
    made_with, named = stored.meta["teacher"], ", ".join(member.spec for member in members(stored.config.teacher))
    if isinstance(teacher, str):
        if teacher != named:
            raise ConfigError(f"{path} was made with {made_with}, not with {teacher}; start a new run")
        teacher = None
    if teacher is None and stored.config.pgkd.num_kd_steps and made_with != named:
        raise ConfigError(f"{path} was made with {made_with}; give it again: resume(path, teacher=...)")
    if sorted(checks or ()) != stored.meta["checks"]:
        named = ", ".join(stored.meta["checks"]) or "none"
        raise ConfigError(f"{path} was made with checks: {named}; give the same: resume(path, checks=...), in Python")
    prompt = stored.meta["prompt"]
    if teacher_prompt(stored.config.teacher).hash != prompt["sha256"]:
        raise ConfigError(
            f"prompt {prompt['name']!r} is another than when {path} was made; put it back, or start a new run"
        )
    config = stored.config if budget is None else stored.config.changed({"budget": budget})
    return _run(stored.task, config, teacher, Path(path), observer, checks, cache_counts, resumed=True)


def _run(
    task: Task,
    config: PGKDConfig,
    teacher: BaseChatModel | Teacher | None,
    out: Path | None,
    observer: Observer | None,
    checks: Mapping[str, Check] | None,
    cache_counts: bool,
    resumed: bool,
) -> DistillResult:
    from pgkd_agent.student.recipe import recipe_for
    from pgkd_agent.student.student import TorchStudent

    started = time.perf_counter()
    if out is not None and not resumed:
        require_new(out)
    observer = observer or Observer()
    recipe = recipe_for(config.student)
    config = _resolved(config, recipe.decided(config.student))
    template, prices = teacher_prompt(config.teacher), load_prices(config.teacher.prices)
    budget = Budget(config.budget, prices, cache_counts)
    student = TorchStudent(config.student, task.taxonomy, config.seed, observer.on_epoch, recipe)
    held_out = texts_of((*task.validation, *task.test))
    most = getattr(teacher, "most_samples", config.pgkd.pgkd_batch_size)
    screener = Guardrails(config.guardrails, task.taxonomy, held_out, checks, most)
    bill = Bill(task, config, prices, budget, observer)
    models = BothModels(task, student, config.student, observer)
    pool = _pool(task, config, student)
    with recording(out, resumed, student) as recorder:
        told = Observers([recorder, observer, bill, models])
        log, stored = recorder.calls, recorder.num_stored_steps
        with open_teacher(teacher, template, task, config, screener, budget, log, told, stored, pool) as opened:
            bill.at_start(opened, resumed)
            if not resumed:
                recorder.begin(config, run_meta(config, task, template, opened, student, checks or {}), task)
                opened.check()
            recorder.keep()
            training = run_pgkd(task, student, opened.teacher, opened.screener, config, told)
        tested = models.tested(training)
        test, calibration = before_after(task, tested), calibrate(task, tested)
        told.on_predictions(row_predictions(task, tested))
        seconds = time.perf_counter() - started
        done = training, tested.last_fit, test, calibration
        summary = summarize(config, *done, seconds, opened.name, prices, bill.estimate)
        told.on_result(summary)
    return DistillResult(student.classifier(calibration.temperature), task, training, summary, recorder.path)


def _pool(task: Task, config: PGKDConfig, student: TorchStudent) -> Pool | None:
    """What the teacher chooses texts from; None where it labels none.

    Raises:
        ConfigError: Nothing at all is asked of it.
    """
    if not texts_to_label(task, config):
        return None

    from pgkd_agent.student.embedding import Embedder
    from pgkd_agent.student.head_start import class_texts

    return Pool(task.unlabelled, student.predict, Embedder(config.student), class_texts(task.taxonomy))


def _resolved(config: PGKDConfig, student: StudentSettings) -> PGKDConfig:
    """The settings with everything decided that None left open."""
    prompt = prompt_variant(config.teacher)
    return config.changed({"student": student, "teacher.prompt": prompt})
