"""EvoKD (Liu et al. 2024): the teacher analyses the student's rights and wrongs, then writes easy and hard samples.

A reconstruction from the source's abstract: prompts, batch sizes and the training schedule are ours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pgkd_agent.errors import BudgetExceededError, TeacherOutputError
from pgkd_agent.experiments.methods.generated import own_prompts, rephrased
from pgkd_agent.experiments.methods.method import HARD_LABELS, TEACHER, Count, Method, Options
from pgkd_agent.experiments.methods.prompted import labelling_prompt
from pgkd_agent.experiments.methods.rows import take_shots
from pgkd_agent.experiments.methods.setting import Outcome, Setting, batches, on_test, unselected_student
from pgkd_agent.loop.evidence import score_rows
from pgkd_agent.loop.guardrails import Guardrails, LabelResolver
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import reply_tokens
from pgkd_agent.teacher.prompting.templates import label_values
from pgkd_agent.teacher.prompting.tokens import shown
from pgkd_agent.text import counted
from pgkd_agent.types import EvidenceItem, Example, GeneratedSample, TokenUsage, label_names

if TYPE_CHECKING:
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


class EvoKDOptions(Options):
    shots: Count = 1
    """Real rows of each class."""
    steps: Count = 200
    """Gradient steps on the first rows, rounded up to whole epochs."""
    passes: Count = 4
    """Epochs over all rows so far after each step."""


class EvoKDInitOptions(EvoKDOptions):
    num_aug: Count = 6
    """Rephrasings of a row."""


def evokd(setting: Setting, options: EvoKDOptions) -> Outcome:
    """EvoKD from `shots` real rows of each class; steps and samples a step are those of `pgkd`.

    Validation rows are not used: the student is the last one.
    """
    return _evolve(setting, take_shots(setting, options.shots), options, needs_samples=True)


def evokd_init(setting: Setting, options: EvoKDInitOptions) -> Outcome:
    """EvoKD that begins with rephrased rows too, as AugGPT makes them; a cap on tokens leaves them half of it.

    Where EvoKD then adds nothing, the student is that of the rephrased rows.
    """
    rows, requests, usage = rephrased(_with_half(setting), take_shots(setting, options.shots), options.num_aug)
    outcome = _evolve(setting, rows, options, needs_samples=False)
    return replace(outcome, requests=outcome.requests + requests, usage=outcome.usage + usage)


def _evolve(setting: Setting, first: Sequence[Example], options: EvoKDOptions, needs_samples: bool) -> Outcome:
    from pgkd_agent.teacher.calls.models import open_models

    task, config, rows = setting.task, setting.config, list(first)
    before = unselected_student(setting, math.ceil(options.steps / batches(len(rows), config)))
    done = before.fit(rows, rows, 0).gradient_steps
    student = unselected_student(setting, options.passes)
    student.restore(before.snapshot())
    newest, seen = rows, student.predict(texts_of(rows))
    held_out, most = texts_of((*task.validation, *task.test)), config.pgkd.pgkd_batch_size
    screener = Guardrails(config.guardrails, task.taxonomy, held_out, most=most)
    longest = reply_tokens(own_prompts("evokd_writing")[0], task.train, config.teacher, PER_CALL)
    budget = Budget(config.budget, load_prices(config.teacher.prices), cache_counts=True)
    log = setting.folder / "calls.sqlite"
    teacher_settings = config.teacher.changed({"batch": False})  # a call waits for the one before
    with open_models(None, [(teacher_settings, longest)], config.seed, budget, log) as (model,):
        model.caller.check()
        teacher = _AnalysingTeacher(model, setting)
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
        nothing = f"not one sample of EvoKD came of {counted(teacher.requests, 'call')}: {why}"
        if needs_samples:
            raise TeacherOutputError(nothing)
        logger.warning("%s; the student has the rephrased rows", nothing)
    return replace(
        on_test(setting, student.predict),
        rows=len(rows),
        gradient_steps=done,
        requests=teacher.requests,
        usage=teacher.usage,
    )


def _with_half(setting: Setting) -> Setting:
    """With half of the tokens, where they are capped."""
    most = setting.config.budget.max_tokens
    if most is None:
        return setting
    return replace(setting, config=setting.config.changed({"budget.max_tokens": most // 2}))


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
        self._task, self._config = setting.task, setting.config
        zero_shot, task = setting.config.zero_shot, setting.task
        self._classifier = ZeroShotClassifier(model.for_labels(), zero_shot, task.taxonomy, task.description)
        self._analyses: list[str] = []

    def write(self, kd_step: int, scored: Sequence[EvidenceItem], first: Sequence[Example]) -> list[GeneratedSample]:
        """Samples with the labels that the teacher gave their texts afterwards; where a cap ends it, what came."""
        texts: list[str] = []
        labels: dict[int, str | None] = {}
        try:
            self._analyses.append(self._analysis(kd_step, scored))
            wanted = self._config.pgkd.pgkd_batch_size
            for index, done in enumerate(range(0, wanted, PER_CALL), 1):
                texts += self._texts(kd_step, index, min(PER_CALL, wanted - done), first)
        except BudgetExceededError as error:
            self.stopped_by = str(error)
        try:
            for number, answer in self._classifier.classify(dict(enumerate(texts)), kd_step):
                self._count(answer.reply)
                labels[number] = answer.label
        except BudgetExceededError as error:
            self.stopped_by = str(error)
        return [GeneratedSample(text, label) for number, text in enumerate(texts) if (label := labels.get(number))]

    def _texts(self, kd_step: int, index: int, size: int, first: Sequence[Example]) -> list[str]:
        from pgkd_agent.teacher.prompting.parsing import parse_samples

        drawn = rng(self._config.seed, kd_step, f"evokd/{index}")
        shots = drawn.sample(list(first), min(SHOWN, len(first)))
        values = {
            "classification_report": self._analyses[-1],
            "few_shot": [{"text": shown(row.text), "label": row.label} for row in shots],
            "num_samples": size,
        }
        form = self._model.sample_form(label_names(self._task.taxonomy), size)
        reply = self._ask(kd_step, index, "evokd_writing", values, form)
        return [
            sample.text
            for sample in parse_samples(reply.text, resolve=LabelResolver(self._task.taxonomy)).samples[:size]
        ]

    def _analysis(self, kd_step: int, scored: Sequence[EvidenceItem]) -> str:
        from pgkd_agent.teacher.prompting.json_reading import without_thinking

        drawn = rng(self._config.seed, kd_step, "evokd/analysis")

        def some(right: bool) -> list[dict[str, str]]:
            items = [item for item in scored if (item.gold_label == item.predicted_label) == right]
            return [
                {"text": shown(item.text), "label": item.gold_label, "predicted_label": item.predicted_label}
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

        template = own_prompts(prompt)[0]
        taxonomy = [label_values(label) for label in self._task.taxonomy]
        chain = ChatPrompt(template) | self._model.bind(**(form or {})) | reply_of
        which = CallId(kd_step, index).config(template.hash)
        first = {"taxonomy": taxonomy, "task_description": self._task.description, **values}
        reply = until_it_fits(lambda shown: chain.invoke(shown, which), first, _with_fewer_rows)
        self._count(reply)
        return reply

    def _count(self, reply: RawReply) -> None:
        self.requests += 1
        self.usage += reply.usage


def _with_fewer_rows(values: dict[str, Any]) -> dict[str, Any] | None:
    if not any(values.get(pool) for pool in POOLS):
        return None
    logger.info("EvoKD: prompt too long for the teacher, half of its rows are left out")
    return {**values, **{pool: values[pool][: len(values[pool]) // 2] for pool in POOLS if pool in values}}


READS = ("student", "pgkd", "evidence", "guardrails", *TEACHER)
METHODS = (
    Method(
        "evokd",
        evokd,
        EvoKDOptions,
        READS,
        ignores=HARD_LABELS,
        prompts=lambda config: [*own_prompts("evokd_analysis", "evokd_writing"), labelling_prompt(config)],
    ),
    Method(
        "evokd_init",
        evokd_init,
        EvoKDInitOptions,
        READS,
        ignores=HARD_LABELS,
        prompts=lambda config: [*own_prompts("evokd_analysis", "evokd_writing", "auggpt"), labelling_prompt(config)],
    ),
)
