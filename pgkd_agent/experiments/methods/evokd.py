"""EvoKD (Liu et al. 2024): the teacher analyses the student's rights and wrongs, then writes easy and hard samples.

A reconstruction from the source's abstract: prompts, batch sizes and the training schedule are ours.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgkd_agent.errors import BudgetExceededError, ConfigError, TeacherOutputError
from pgkd_agent.experiments.methods.generated import prompt_file, rephrased
from pgkd_agent.experiments.methods.rows import take_shots
from pgkd_agent.experiments.methods.setting import Outcome, Setting, batches, new_student, on_test
from pgkd_agent.loop.evidence import score_rows
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import reply_tokens
from pgkd_agent.teacher.prompting.templates import label_values, load_prompt
from pgkd_agent.text import shorten
from pgkd_agent.types import EvidenceItem, Example, GeneratedSample, TokenUsage, label_names

if TYPE_CHECKING:
    from pgkd_agent.student.student import TorchStudent
    from pgkd_agent.teacher.calls.call_log import RawReply
    from pgkd_agent.teacher.calls.gated import GatedChatModel

logger = logging.getLogger(__name__)

SHOWN = 8
"""Most right rows, and most wrong ones, that an analysis is made of."""
REMEMBERED = 2
"""Analyses that stay in the prompt."""
POOLS = ("few_shot", "correct", "misclassified")
"""Rows that a prompt may do without."""
SENTENCES = 4
ANALYSIS_CHARS = 1500
PER_CALL = 8
"""Samples asked for at a time."""


def evokd(setting: Setting, shots: int = 1, steps: int = 200, passes: int = 4) -> Outcome:
    """EvoKD from `shots` real rows of each class; steps and samples a step are those of `pgkd`.

    Validation rows are not used: the student is the last one.

    Args:
        steps: Gradient steps on the first rows, rounded up to whole epochs.
        passes: Epochs over all rows so far after each step.
    """
    return _evolve(setting, take_shots(setting, shots), steps, passes, needs_samples=True)


def evokd_init(setting: Setting, shots: int = 1, steps: int = 200, passes: int = 4, num_aug: int = 6) -> Outcome:
    """EvoKD that begins with rephrased rows too, as AugGPT makes them; a cap on tokens leaves them half of it.

    Where EvoKD then adds nothing, the student is that of the rephrased rows.

    Args:
        shots, steps, passes: As those of `evokd`.
        num_aug: Rephrasings of a row.
    """
    started = time.perf_counter()
    rows, requests, usage = rephrased(_with_half(setting), take_shots(setting, shots), num_aug)
    outcome = _evolve(setting, rows, steps, passes, needs_samples=False)
    return replace(
        outcome,
        requests=outcome.requests + requests,
        usage=outcome.usage + usage,
        seconds=time.perf_counter() - started,
    )


def _evolve(setting: Setting, first: Sequence[Example], steps: int, passes: int, needs_samples: bool) -> Outcome:
    started = time.perf_counter()
    task, config, rows = setting.task, setting.config, list(first)
    before = _student(setting, math.ceil(steps / batches(len(rows), config)))
    done = before.fit(rows, rows, 0).gradient_steps
    student = _student(setting, passes)
    student.restore(before.snapshot())
    newest, seen = rows, student.predict(texts_of(rows))
    screener = Guardrails(config.step_guardrails, task.taxonomy, texts_of((*task.validation, *task.test)))
    with _teacher(setting) as teacher:
        for kd_step in range(1, config.pgkd.num_kd_steps + 1):
            samples = teacher.write(kd_step, score_rows(newest, seen, task.taxonomy), first)
            accepted = screener.screen(samples, History.of(tuple(rows)), frozenset(), kd_step).accepted
            if accepted:
                newest = [Example(item.text, item.label) for item in accepted]
                seen = student.predict(texts_of(newest))  # before they are trained on: what it cannot do yet
                rows += newest
                done += student.fit(rows, rows, kd_step).gradient_steps
            if teacher.stopped_by:
                logger.warning("EvoKD ends with step %d: %s", kd_step, teacher.stopped_by)
                break
    if len(rows) == len(first):
        why = teacher.stopped_by or "nothing readable, or nothing that the guardrails let through"
        nothing = f"not one sample of EvoKD came of {teacher.requests} calls: {why}"
        if needs_samples:
            raise TeacherOutputError(nothing)
        logger.warning("%s; the student has the rephrased rows", nothing)
    return Outcome(
        *on_test(setting, student.predict),
        rows=len(rows),
        gradient_steps=done,
        requests=teacher.requests,
        usage=teacher.usage,
        seconds=time.perf_counter() - started,
    )


def _student(setting: Setting, epochs: int) -> TorchStudent:
    """One that goes on from where it is, for as many epochs."""
    from pgkd_agent.student.recipe import recipe_for

    rates = recipe_for(setting.config.student).learning_rates[:1]  # there are no validation rows to choose one by
    return new_student(setting, max_epochs=epochs, patience=epochs, restart="continue", learning_rates=rates)


def _with_half(setting: Setting) -> Setting:
    """With half of the tokens, where they are capped."""
    most = setting.config.budget.max_tokens
    return (
        setting if most is None else replace(setting, config=setting.config.changed({"budget.max_tokens": most // 2}))
    )


@contextmanager
def _teacher(setting: Setting) -> Iterator[_AnalysingTeacher]:
    if hasattr(setting.teacher, "write"):
        raise ConfigError("EvoKD needs a teacher that is a chat model; this one only has write()")
    from pgkd_agent.teacher.calls.models import open_models

    config = setting.config
    template = load_prompt(str(prompt_file("evokd_writing")))
    teachers = [(config.teacher, reply_tokens(template, setting.task.train, config.teacher, PER_CALL))]
    setting.folder.mkdir(parents=True, exist_ok=True)
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    with open_models(setting.teacher, teachers, config.seed, budget, setting.folder / "calls.sqlite") as (model,):
        model.caller.check()
        yield _AnalysingTeacher(model, setting)


class _AnalysingTeacher:
    """Analysis, writing and labelling: three kinds of calls a step.

    Attributes:
        requests, usage: Of all steps so far.
        stopped_by: The cap that ended the last step, in words.
    """

    def __init__(self, model: GatedChatModel, setting: Setting) -> None:
        from pgkd_agent.teacher.zero_shot import ZeroShotClassifier

        self.requests = 0
        self.usage = TokenUsage()
        self.stopped_by = ""
        self._model = model
        self._setting = setting
        task = setting.task
        zero_shot = setting.config.zero_shot
        self._classifier = ZeroShotClassifier(model.for_labels(), zero_shot, task.taxonomy, task.description)
        self._analyses: list[str] = []

    def write(self, kd_step: int, scored: Sequence[EvidenceItem], first: Sequence[Example]) -> list[GeneratedSample]:
        """Samples with the labels that the teacher gave their texts afterwards; where a cap ends it, what came."""
        texts: list[str] = []
        labels: dict[int, str | None] = {}
        try:
            self._analyses.append(self._analysis(kd_step, scored))
            for index, size in enumerate(self._sizes(), 1):
                texts += self._texts(kd_step, index, size, first)
        except BudgetExceededError as error:
            self.stopped_by = str(error)
        try:
            for number, answer in self._classifier.classify(dict(enumerate(texts)), kd_step):
                self._count(answer.reply)
                labels[number] = answer.label
        except BudgetExceededError as error:
            self.stopped_by = str(error)
        return [
            GeneratedSample(text, label)
            for number, text in enumerate(texts)
            if (label := labels.get(number)) is not None
        ]

    def _sizes(self) -> list[int]:
        wanted = self._setting.config.pgkd.pgkd_batch_size
        return [min(PER_CALL, wanted - done) for done in range(0, wanted, PER_CALL)]

    def _texts(self, kd_step: int, index: int, size: int, first: Sequence[Example]) -> list[str]:
        from pgkd_agent.teacher.prompting.parsing import parse_samples

        drawn = rng(self._setting.config.seed, kd_step, f"evokd/{index}")
        shots = drawn.sample(list(first), min(SHOWN, len(first)))
        values = {
            "classification_report": self._analyses[-1],
            "few_shot": [{"text": self._cut(row.text), "label": row.label} for row in shots],
            "num_samples": size,
        }
        form = self._model.sample_form(label_names(self._setting.task.taxonomy), size)
        reply = self._ask(kd_step, index, "evokd_writing", values, form)
        return [sample.text for sample in parse_samples(reply.text).samples[:size]]

    def _analysis(self, kd_step: int, scored: Sequence[EvidenceItem]) -> str:
        from pgkd_agent.teacher.prompting.parsing import without_thinking

        drawn = rng(self._setting.config.seed, kd_step, "evokd/analysis")

        def some(right: bool) -> list[dict[str, str]]:
            items = [item for item in scored if (item.gold_label == item.predicted_label) == right]
            return [
                {"text": self._cut(item.text), "label": item.gold_label, "predicted_label": item.predicted_label}
                for item in drawn.sample(items, min(SHOWN, len(items)))
            ]

        values = {
            "classification_report": "\n".join(self._analyses[-REMEMBERED:]),
            "correct": some(True),
            "misclassified": some(False),
            "num_samples": SENTENCES,
        }
        reply = self._ask(kd_step, 0, "evokd_analysis", values)
        return without_thinking(reply.text).strip()[:ANALYSIS_CHARS]

    def _ask(
        self, kd_step: int, index: int, prompt: str, values: dict[str, Any], form: Mapping[str, Any] | None = None
    ) -> RawReply:
        """
        Args:
            form: Of an answer with samples; see `GatedChatModel.sample_form`.
        """
        from pgkd_agent.teacher.calls.asking import until_it_fits
        from pgkd_agent.teacher.calls.question import CallId, reply_of
        from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt

        task, template = self._setting.task, load_prompt(str(prompt_file(prompt)))
        taxonomy = [label_values(label) for label in task.taxonomy]
        chain = ChatPrompt(template) | self._model.bind(**(form or {})) | reply_of
        which = CallId(kd_step, index).config(template.hash)
        first = {"taxonomy": taxonomy, "task_description": task.description, **values}
        reply = until_it_fits(lambda shown: chain.invoke(shown, which), first, _with_fewer_rows)
        self._count(reply)
        return reply

    def _count(self, reply: RawReply) -> None:
        self.requests += 1
        self.usage += reply.usage

    def _cut(self, text: str) -> str:
        return shorten(text, self._setting.config.teacher.max_text_chars)


def _with_fewer_rows(values: dict[str, Any]) -> dict[str, Any] | None:
    if not any(values.get(pool) for pool in POOLS):
        return None
    logger.info("EvoKD: prompt too long for the teacher, half of its rows are left out")
    return {**values, **{pool: values[pool][: len(values[pool]) // 2] for pool in POOLS if pool in values}}
