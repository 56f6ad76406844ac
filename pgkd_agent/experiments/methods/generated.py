"""Methods whose rows an LLM writes without knowing the student."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pgkd_agent.errors import BudgetExceededError, TeacherOutputError
from pgkd_agent.experiments.methods.loops import AcceptAll
from pgkd_agent.experiments.methods.method import HARD_LABELS, TEACHER, Count, Method, Options
from pgkd_agent.experiments.methods.rows import RowOptions, take_shots, train_in_stages
from pgkd_agent.experiments.methods.setting import Outcome, Setting, batches, new_student, on_test, unselected_student
from pgkd_agent.experiments.methods.sungen import learn_weights
from pgkd_agent.files import resource_folder
from pgkd_agent.loop.guardrails import Guardrails, Screened
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.protocols import Screener, Teacher
from pgkd_agent.metrics.report import report_without_rows
from pgkd_agent.seeding import derive_seed, rng
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import open_teacher, teacher_prompt
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt
from pgkd_agent.text import counted, normalize
from pgkd_agent.types import Evidence, Example, Label, TeacherReply, TeacherRequest, TokenUsage, label_names

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.1
"""Of the generated rows; the source's 90/10 split."""


class ZeroGenOptions(Options):
    per_class: Count = 10
    """Texts asked for of each class, rounded up to whole requests."""


class SunGenOptions(ZeroGenOptions):
    rounds: Count = 10
    """Times that the student trains for an epoch and the weights change."""


class AugGPTOptions(RowOptions):
    num_aug: Count = 6
    """Rephrasings of a row."""


def prompt_file(name: str) -> Path:
    return resource_folder("prompts") / "methods" / f"{name}.j2"


def own_prompts(*names: str) -> list[PromptTemplate]:
    """Of `prompts/methods`."""
    return [load_prompt(str(prompt_file(name))) for name in names]


def zerogen(setting: Setting, options: ZeroGenOptions) -> Outcome:
    """ZeroGen (Ye et al. 2022): the teacher writes texts from the names of the classes, and no real row is used.

    Trained and selected on generated rows alone, with the student's own recipe instead of the source's (3 epochs at
    2e-5, at which a small encoder learns nothing), and sampled at the teacher's temperature instead of by nucleus.
    """
    return _on_generated(setting, options.per_class, 0)


def sungen(setting: Setting, options: SunGenOptions) -> Outcome:
    """SunGen (Gao et al. 2023): the texts of ZeroGen, with weights learned by a noise-robust loss on them."""
    return _on_generated(setting, options.per_class, options.rounds)


def _on_generated(setting: Setting, per_class: int, rounds: int) -> Outcome:
    screened, reply = _write(setting, per_class)
    rows = [Example(item.text, item.label) for item in screened.accepted]
    rng(setting.config.seed, 0, "generated").shuffle(rows)
    held = max(1, round(VALIDATION_SHARE * len(rows)))
    if len(rows) <= held:
        raise TeacherOutputError(f"only {len(rows)} of {per_class} texts a class passed the guardrails")
    train, validation = rows[held:], rows[:held]
    weights = _learned_weights(setting, train, rounds) if rounds else None
    student = new_student(setting)
    fit = student.fit(train, validation, 0, weights)
    return replace(
        on_test(setting, student.predict),
        rows=len(train),
        gradient_steps=fit.gradient_steps + rounds * batches(len(train), setting.config),
        requests=reply.num_requests + screened.num_requests,
        usage=reply.usage + screened.usage,
    )


def _learned_weights(setting: Setting, rows: Sequence[Example], rounds: int) -> list[float]:
    """With a mean of 1, so that a step is as long as one without weights."""
    names = list(label_names(setting.task.taxonomy))
    drawn = np.random.default_rng(derive_seed(setting.config.seed, 0, "weights"))
    learner = _EpochLearner(setting, rows)
    weights = learn_weights(learner, [names.index(row.label) for row in rows], rounds, drawn)
    return list((weights / weights.mean()).tolist())


class _EpochLearner:
    """The student as SunGen trains it: an epoch at a time, from where it was."""

    def __init__(self, setting: Setting, rows: Sequence[Example]) -> None:
        # the weights follow gradients of the labels as they are
        self._student = unselected_student(setting, 1, label_smoothing=0.0)
        self._rows = rows
        self._round = 0

    def fit(self, weights: np.ndarray) -> None:
        self._student.fit(self._rows, self._rows[:1], self._round, weights.tolist())  # one epoch: nothing to select
        self._round += 1

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        texts = texts_of(self._rows)
        return self._student.predict(texts), self._student.head_inputs(texts)


def auggpt(setting: Setting, options: AugGPTOptions) -> Outcome:
    """AugGPT (Dai et al. 2023): the teacher says each training row in other words; the label is inherited."""
    rows, requests, usage = rephrased(setting, take_shots(setting, options.shots), options.num_aug)
    outcome = train_in_stages(setting, [rows], options.steps, options.shots is None)
    return replace(outcome, requests=requests, usage=usage)


def rephrased(setting: Setting, real: Sequence[Example], num_aug: int) -> tuple[list[Example], int, TokenUsage]:
    """Rows and `num_aug` rephrasings of each, without texts of held-out rows; calls and tokens that it took."""
    rows = {normalize(row.text): row for row in real}
    held_out = {normalize(row.text) for row in (*setting.task.validation, *setting.task.test)}
    requests, usage, labels = 0, TokenUsage(), {label.name: label for label in setting.task.taxonomy}
    asked = list(real)
    rng(setting.config.seed, 0, "rephrased").shuffle(asked)  # so that a cap does not leave out the last classes
    with _teacher(setting, "auggpt", num_aug, AcceptAll(), at_once=False) as (teacher, _):
        for number, row in enumerate(asked, 1):
            try:
                reply = teacher.write(_request(setting, number, num_aug, (labels[row.label],), (row,)))
            except TeacherOutputError as error:  # of one row; the others may go better
                requests += len(error.raw_replies)
                logger.warning("row %d of %d was not rephrased: nothing readable came", number, len(asked))
                continue
            requests, usage = requests + reply.num_requests, usage + reply.usage
            for sample in reply.samples:
                rows.setdefault(normalize(sample.text), Example(sample.text.strip(), row.label))
            if reply.stopped_by:
                logger.warning("%d of %d rows were rephrased: %s", number - 1, len(asked), reply.stopped_by)
                break
    if len(rows) == len(real):
        raise TeacherOutputError(
            f"not one new text came of rephrasing {counted(len(real), 'row')} ({counted(requests, 'call')})"
        )
    return [row for text, row in rows.items() if text and text not in held_out], requests, usage


def _write(setting: Setting, per_class: int) -> tuple[Screened, TeacherReply]:
    """As many texts of each class, rounded up to whole requests, as the guardrails see them."""
    task, config = setting.task, setting.config
    per_request = math.ceil(per_class / math.ceil(per_class / config.teacher.samples_per_request))
    number = math.ceil(per_class / per_request) * per_request * len(task.taxonomy)
    held_out = texts_of((*task.validation, *task.test))
    screener: Screener = Guardrails(config.guardrails, task.taxonomy, held_out, most=number)
    request = _request(setting, 1, number, task.taxonomy, ())
    with _teacher(setting, "zerogen", per_request, screener, at_once=True) as (teacher, screener):
        reply = teacher.write(request)
        if reply.stopped_by and not reply.samples:
            raise BudgetExceededError(reply.stopped_by)
        return screener.screen(reply.samples, History(()), reply.shown_texts, 1), reply


def _request(
    setting: Setting, kd_step: int, num_samples: int, taxonomy: tuple[Label, ...], train: tuple[Example, ...]
) -> TeacherRequest:
    """Without evidence, and with a report that makes all classes alike; of these classes and rows alone."""
    return TeacherRequest(
        kd_step=kd_step,
        num_samples=num_samples,
        taxonomy=taxonomy,
        task_description=setting.task.description,
        report=report_without_rows(taxonomy),
        evidence=Evidence(),
        few_shot=(),
        train=train,
    )


@contextmanager
def _teacher(
    setting: Setting, prompt: str, at_a_time: int, screener: Screener, at_once: bool
) -> Iterator[tuple[Teacher, Screener]]:
    """The teacher of the settings with another prompt; calls that were answered before are taken from the log.

    Args:
        at_a_time: Samples of a request.
        at_once: Whether all requests are there from the beginning; else batch jobs would be of one request each.
    """
    config = setting.config.changed(
        {
            "pgkd.num_kd_steps": 1,  # else no teacher is opened
            "teacher.prompt": str(prompt_file(prompt)),
            "teacher.mode": "chain",
            "teacher.samples_per_request": at_a_time,
            "teacher.batch": setting.config.teacher.batch and at_once,
        }
    )
    budget = Budget(config.budget, load_prices(config.teacher.prices), cache_counts=True)
    template, log = teacher_prompt(config.teacher), setting.folder / "calls.sqlite"
    with open_teacher(None, template, setting.task, config, screener, budget, log) as opened:
        opened.check()
        assert opened.teacher is not None
        yield opened.teacher, opened.screener


READS = ("student", "guardrails", *TEACHER)
METHODS = (
    Method("zerogen", zerogen, ZeroGenOptions, READS, ignores=HARD_LABELS, prompts=lambda _: own_prompts("zerogen")),
    Method("sungen", sungen, SunGenOptions, READS, ignores=HARD_LABELS, prompts=lambda _: own_prompts("zerogen")),
    Method("auggpt", auggpt, AugGPTOptions, READS, ignores=HARD_LABELS, prompts=lambda _: own_prompts("auggpt")),
)
