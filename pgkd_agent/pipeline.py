"""The main job: labelled rows and an LLM in, a better and saved classifier out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.algorithm import run_pgkd
from pgkd_agent.budget import Budget
from pgkd_agent.calibration import Calibration, errors_of, fit_temperature
from pgkd_agent.config import BudgetSettings, PGKDConfig, StudentSettings
from pgkd_agent.data import PRESETS, Task, load_preset, prepare_task, read_examples, read_taxonomy
from pgkd_agent.errors import ConfigError
from pgkd_agent.estimates import Estimate
from pgkd_agent.guardrails import Check, Guardrails
from pgkd_agent.history import History, texts_of
from pgkd_agent.metrics import class_ids, evaluate
from pgkd_agent.preview import estimate, estimate_with, preview
from pgkd_agent.prices import PriceTable, load_prices
from pgkd_agent.prompts import PromptTemplate
from pgkd_agent.protocols import Asked, Teacher
from pgkd_agent.reports import is_current, write_card, write_report
from pgkd_agent.runs import RunDirectory, read_run
from pgkd_agent.summary import BeforeAfter, RunResult, before_after, summarize
from pgkd_agent.teachers import (
    Hooks,
    OpenTeacher,
    members,
    open_teacher,
    prompt_variant,
    teacher_prompt,
)
from pgkd_agent.types import Evaluation, Example, Probabilities, StepRecord

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from pgkd_agent.student.classifier import StudentClassifier
    from pgkd_agent.student.student import TorchStudent

logger = logging.getLogger(__name__)


class Observer:
    """What is told while a run goes; override what is of interest."""

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        """After each epoch of a fit."""

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        """After each request to the teacher."""

    def on_estimate(self, estimate: Estimate) -> None:
        """At the start, and again with the first real prompts, before they are sent."""

    def on_step(self, record: StepRecord) -> None:
        """After each model's evaluation."""

    def on_test(self, n_rows: int) -> None:
        """Before the test rows are predicted."""


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
        config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"spec": teacher})})
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
        checks: As they were given to `distill`: without them other samples pass, and the replay says so.
    Raises:
        ConfigError: The run was made with a teacher that is an object, and none is given; or its prompt is another by
            now.
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
    prompt = stored.meta["prompt"]
    if teacher_prompt(stored.config.teacher).hash != prompt["sha256"]:
        raise ConfigError(
            f"prompt {prompt['name']!r} is another than when {path} was made; put it back, or start a new run"
        )
    config = stored.config if budget is None else stored.config.model_copy(update={"budget": budget})
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
    from pgkd_agent.student.loading import recipe_for
    from pgkd_agent.student.student import TorchStudent

    started = time.perf_counter()
    observer = observer or Observer()
    config = _resolved(config, asdict(recipe_for(config.student)))
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
        listener = _Listener(task, student, directory, budget, observer, config.student)
        bill = _Bill(task, config, prices, observer)
        hooks = Hooks(observer.on_request, bill.on_plan, directory.add_transcript if directory else None)
        log, stored_steps = (directory.calls, directory.num_stored_steps) if directory else (None, 0)
        with open_teacher(teacher, template, task, config, screener, budget, log, hooks, stored_steps) as opened:
            if opened.models:
                bill.at_start(opened, resumed)
            if not resumed:
                if directory:
                    directory.write_start(config, _meta(config, task, template, opened, student), task)
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
                _write_pages(directory.path)
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


class _Listener:
    """Stores each step, tells the observer, and keeps what the plain student does on the test rows."""

    def __init__(
        self,
        task: Task,
        student: TorchStudent,
        directory: RunDirectory | None,
        budget: Budget,
        observer: Observer,
        student_settings: StudentSettings,
    ) -> None:
        self._task = task
        self._student = student
        self._directory = directory
        self._budget = budget
        self._observer = observer
        self._settings = student_settings
        self._tested: list[tuple[Evaluation, Probabilities]] = []

    def __call__(self, record: StepRecord, history: History, asked: Asked | None) -> None:
        if self._directory:
            self._directory.add_step(record, asked, self._student)
            if self._directory.has_new_steps:
                _write_pages(self._directory.path)
        self._observer.on_step(record)
        self._budget.seconds_to_leave = self._next_fit(record) or self._budget.seconds_to_leave
        if record.kd_step == 0 and self._task.test:
            self._test()

    def _next_fit(self, record: StepRecord) -> float:
        """Seconds of a fit as long as that of this step; the first one tried every rate, in one part."""
        if record.kd_step:
            return record.student_seconds
        parts = 1 if self._settings.order == "mixed" else 2
        return record.student_seconds / max(len(self._settings.learning_rates), 1) * parts

    def before_after(self, best_step: int) -> BeforeAfter | None:
        """On the test rows; None where there are none. The student is the returned model by now."""
        if not self._tested:
            return None
        (before, _), *_ = self._tested
        if best_step == 0:
            return BeforeAfter(before, before, {})
        self._test()
        predicted = [probabilities.argmax(axis=1) for _, probabilities in self._tested]
        return before_after(before, self._tested[-1][0], class_ids(self._task.test, self._task.taxonomy), predicted)

    def calibration(self) -> Calibration:
        """Of the returned model, after `before_after`."""
        task = self._task
        probabilities = self._student.predict(texts_of(task.validation))
        gold = class_ids(task.validation, task.taxonomy)
        temperature = fit_temperature(probabilities, gold)
        on_test = None
        if self._tested:
            on_test = errors_of(self._tested[-1][1], class_ids(task.test, task.taxonomy), temperature)
        return Calibration(temperature, len(gold), errors_of(probabilities, gold, temperature), on_test)

    def _test(self) -> None:
        """The student as it is now on the test rows."""
        test = self._task.test
        self._observer.on_test(len(test))
        probabilities = self._student.predict(texts_of(test))
        self._tested.append((evaluate(probabilities, test, self._task.taxonomy), probabilities))


class _Bill:
    """What the run will take of its teachers: a range at the start, and sharper with the first real prompts."""

    def __init__(self, task: Task, config: PGKDConfig, prices: PriceTable, observer: Observer) -> None:
        self._task = task
        self._config = config
        self._prices = prices
        self._observer = observer
        self._teachers: Sequence[str] = ()
        self.estimate: Estimate | None = None

    def at_start(self, teacher: OpenTeacher, resumed: bool) -> None:
        """
        Args:
            resumed: Of a run that goes on what it asks first may be in its log.
        Raises:
            BudgetExceededError: The caps leave no room for the first request.
        """
        config = self._config
        self._teachers = teacher.models
        if config.teacher.mode == "agent":  # how often it calls is up to the model
            return
        shown = preview(self._task, config)
        if not resumed:
            teacher.require_room(shown.requests[0])
        self._observer.on_estimate(estimate(shown, self._task, config, teacher.models, self._prices))

    def on_plan(self, prompts: Sequence[int]) -> None:
        if self.estimate:  # of an ensemble the first that writes has made it
            return
        self.estimate = estimate_with(prompts, prompts, self._task, self._config, self._teachers, self._prices)
        self._observer.on_estimate(self.estimate)


def _write_pages(run: Path) -> None:
    """Report and model card; whatever is wrong with them, the run itself goes on."""
    try:
        write_report(run)
        write_card(run)
    except Exception as error:
        logger.warning("no report of %s: %s: %s; `pgkd report` makes it later", run, type(error).__name__, error)


def _resolved(config: PGKDConfig, recipe: dict[str, Any]) -> PGKDConfig:
    """The settings with everything decided that None left open."""
    teacher = config.teacher.model_copy(update={"prompt": prompt_variant(config.teacher)})
    return config.model_copy(update={"student": config.student.model_copy(update=recipe), "teacher": teacher})


def _meta(
    config: PGKDConfig, task: Task, template: PromptTemplate, teacher: OpenTeacher, student: TorchStudent
) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "teacher": teacher.name,
        "prompt": {"name": template.name, "sha256": template.hash},
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
