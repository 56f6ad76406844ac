"""EvoKD (Liu et al. 2024): the teacher analyses the student's rights and wrongs, then writes easy and hard samples.

A reconstruction from the source's abstract: prompts, batch sizes and the training schedule are ours.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pgkd_agent.answer import CONTRACT_LINE, answer_schema
from pgkd_agent.budget import Budget
from pgkd_agent.errors import BudgetExceededError
from pgkd_agent.evidence import score_rows
from pgkd_agent.guardrails import Guardrails
from pgkd_agent.history import History, texts_of
from pgkd_agent.methods.generated import prompt_file, rephrased
from pgkd_agent.methods.rows import take_shots
from pgkd_agent.methods.setting import Outcome, Setting, batches, new_student, on_test
from pgkd_agent.prices import load_prices
from pgkd_agent.prompts import label_values, load_prompt
from pgkd_agent.seeding import rng
from pgkd_agent.teachers import labelling, open_caller, reply_tokens, zero_shot_concurrency
from pgkd_agent.text import shorten
from pgkd_agent.types import EvidenceItem, Example, GeneratedSample, TokenUsage, label_names

if TYPE_CHECKING:
    from pgkd_agent.teacher.call_log import RawReply
    from pgkd_agent.teacher.calling import Caller

logger = logging.getLogger(__name__)

SHOWN = 8
"""Most right rows, and most wrong ones, that an analysis is made of."""
REMEMBERED = 2
"""Analyses that stay in the prompt."""
SENTENCES = 4
ANALYSIS_CHARS = 1500
PER_CALL = 8
"""Samples asked for at a time."""


def evokd(setting: Setting, shots: int = 1, steps: int = 200, passes: int = 4) -> Outcome:
    """EvoKD from `shots` real rows of each class; steps and samples a step are those of `pgkd`.

    Validation rows are not used: the student is the last one.

    Args:
        steps: Gradient steps on the first rows, rounded up to `passes` epochs.
        passes: Epochs over all rows so far after each step.
    """
    return _evolve(setting, take_shots(setting, shots), steps, passes)


def evokd_init(setting: Setting, shots: int = 1, steps: int = 200, passes: int = 4, num_aug: int = 6) -> Outcome:
    """EvoKD that begins with rephrased rows too, as AugGPT makes them.

    Args:
        shots, steps, passes: As those of `evokd`.
        num_aug: Rephrasings of a row.
    """
    started = time.perf_counter()
    rows, requests, usage = rephrased(setting, take_shots(setting, shots), num_aug)
    outcome = _evolve(setting, rows, steps, passes)
    return replace(
        outcome,
        requests=outcome.requests + requests,
        usage=outcome.usage + usage,
        seconds=time.perf_counter() - started,
    )


def _evolve(setting: Setting, first: Sequence[Example], steps: int, passes: int) -> Outcome:
    started = time.perf_counter()
    changes = {"max_epochs": passes, "patience": passes, "restart": "continue"}
    config = setting.config.model_copy(update={"student": setting.config.student.model_copy(update=changes)})
    student = new_student(replace(setting, config=config))
    task, rows, done = setting.task, list(first), 0
    for number in range(math.ceil(steps / (passes * batches(len(rows), config)))):
        done += student.fit(rows, rows, number).epochs * batches(len(rows), config)
    newest, seen = rows, student.predict(texts_of(rows))
    screener = Guardrails(config.guardrails, task.taxonomy, texts_of((*task.validation, *task.test)))
    with _teacher(setting) as teacher:
        for kd_step in range(1, config.pgkd.num_kd_steps + 1):
            try:
                samples = teacher.write(kd_step, score_rows(newest, seen, task.taxonomy), first)
            except BudgetExceededError as error:
                logger.warning("EvoKD ends before step %d: %s", kd_step, error)
                break
            accepted = screener.screen(samples, History.of(tuple(rows)), frozenset(), kd_step).accepted
            if not accepted:
                continue
            newest = [Example(item.text, item.label) for item in accepted]
            seen = student.predict(texts_of(newest))  # before they are trained on: what it cannot do yet
            rows += newest
            done += student.fit(rows, rows, steps + kd_step).epochs * batches(len(rows), config)
    return Outcome(
        *on_test(setting, student.predict),
        rows=len(rows),
        gradient_steps=done,
        requests=teacher.requests,
        usage=teacher.usage,
        seconds=time.perf_counter() - started,
    )


@contextmanager
def _teacher(setting: Setting) -> Iterator[_AnalysingTeacher]:
    config = setting.config
    per_call = config.model_copy(update={"pgkd": config.pgkd.model_copy(update={"pgkd_batch_size": PER_CALL})})
    longest = reply_tokens(load_prompt(str(prompt_file("evokd_writing"))), setting.task, per_call)
    setting.folder.mkdir(parents=True, exist_ok=True)
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    with open_caller(setting.teacher, config, longest, budget, setting.folder / "calls.sqlite") as caller:
        caller.check()
        yield _AnalysingTeacher(caller, setting)


class _AnalysingTeacher:
    """Analysis, writing and labelling: three kinds of calls a step.

    Attributes:
        requests, usage: Of all steps so far.
    """

    def __init__(self, caller: Caller, setting: Setting) -> None:
        self.requests = 0
        self.usage = TokenUsage()
        self._caller = caller
        self._setting = setting
        self._classifier = labelling(caller, setting.task, setting.config)
        self._analyses: list[str] = []

    def write(self, kd_step: int, scored: Sequence[EvidenceItem], first: Sequence[Example]) -> list[GeneratedSample]:
        """Samples with the labels that the teacher gave their texts afterwards."""
        from pgkd_agent.teacher.parsing import parse_samples

        config, names = self._setting.config, label_names(self._setting.task.taxonomy)
        self._analyses.append(self._analysis(kd_step, scored))
        sizes = [PER_CALL] * (config.pgkd.pgkd_batch_size // PER_CALL)
        if rest := config.pgkd.pgkd_batch_size % PER_CALL:
            sizes.append(rest)
        texts: dict[int, str] = {}
        for index, size in enumerate(sizes, 1):
            drawn = rng(config.seed, kd_step, f"evokd/{index}")
            shots = drawn.sample(list(first), min(SHOWN, len(first)))
            values = {
                "classification_report": self._analyses[-1],
                "few_shot": [{"text": self._cut(row.text), "label": row.label} for row in shots],
                "num_samples": size,
            }
            schema = answer_schema(names)
            reply = self._ask(kd_step, index, "evokd_writing", values, schema, CONTRACT_LINE.format(num_samples=size))
            texts |= {len(texts) + n: sample.text for n, sample in enumerate(parse_samples(reply.text).samples[:size])}
        teachers = zero_shot_concurrency(config.zero_shot, [config.teacher])
        samples = []
        for number, answer in sorted(self._classifier.classify(texts, teachers, kd_step), key=lambda item: item[0]):
            self._count(answer.reply)
            if answer.label is not None:
                samples.append(GeneratedSample(texts[number], answer.label))
        return samples

    def _analysis(self, kd_step: int, scored: Sequence[EvidenceItem]) -> str:
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
        return self._ask(kd_step, 0, "evokd_analysis", values).text.strip()[:ANALYSIS_CHARS]

    def _ask(
        self,
        kd_step: int,
        index: int,
        prompt: str,
        values: dict[str, object],
        schema: dict[str, object] | None = None,
        form: str = "",
    ) -> RawReply:
        from pgkd_agent.teacher.calling import CallId, Question

        task, template = self._setting.task, load_prompt(str(prompt_file(prompt)))
        common = {
            "taxonomy": [label_values(label) for label in task.taxonomy],
            "task_description": task.description,
        }
        messages = template.render({**common, **values})
        reply = self._caller.call(Question(CallId(kd_step, index), messages, template.hash, schema, form))
        self._count(reply)
        return reply

    def _count(self, reply: RawReply) -> None:
        self.requests += 1
        self.usage += reply.usage

    def _cut(self, text: str) -> str:
        return shorten(text, self._setting.config.teacher.max_text_chars)
