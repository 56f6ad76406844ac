"""The first prompts of a run before anything is trained: to be looked at, and for what the run will cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.errors import TeacherUnavailableError
from pgkd_agent.loop.algorithm import build_request
from pgkd_agent.loop.evidence import score_rows
from pgkd_agent.loop.history import History
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.teacher.calls.estimates import Estimate, estimate_run
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.teacher.labelling import CANDIDATES, GOLD_ROWS, ROWS_PER_CANDIDATE
from pgkd_agent.teacher.opening import (
    annotation_prompt,
    members,
    reply_limit,
    reply_tokens,
    teacher_prompt,
    texts_to_label,
)
from pgkd_agent.teacher.prompting.answer import LABEL_TOKENS, NONE
from pgkd_agent.teacher.prompting.templates import (
    Message,
    PromptTemplate,
    annotation_values,
    load_prompt,
    prompt_tokens,
    zero_shot_values,
)
from pgkd_agent.teacher.prompting.tokens import estimate_tokens, shown
from pgkd_agent.types import Example, Label, Probabilities

if TYPE_CHECKING:
    from pgkd_agent.teacher.prompting.requests import PromptRequest

TOKENS_AROUND_SAMPLE = 14
"""Of a sample in JSON: keys, quotes, label."""
SHORT_ANSWER = 8
"""Tokens of a label in JSON."""


@dataclass(frozen=True)
class Preview:
    """`requests` are all those of the first KD step that ask for samples, `prompts` the same as messages."""

    template: PromptTemplate
    requests: list[PromptRequest]
    labelling: list[Message]
    """About a text of the pool; empty without a pool."""

    @cached_property
    def prompts(self) -> list[list[Message]]:
        return [self.template.render(request.values) for request in self.requests]


def preview(task: Task, config: PGKDConfig) -> Preview:
    """Render with a stand-in for the student that errs on every second row, so that every pool shows.

    The stand-in's predictions and report mean nothing; sizes and layout are those of the real prompt.
    """
    template = teacher_prompt(config.teacher)
    return Preview(template, _requests(task, config, template, mistakes=True), _labelling_prompt(task, config))


def refusals(config: PGKDConfig) -> list[str]:
    """Why the teachers of a run could not be asked yet, as for want of a key; without asking them.

    Raises:
        ConfigError: There is no such teacher.
    """
    from pgkd_agent.teacher.providers.factory import build_teacher

    found = []
    for settings in members(config.teacher) if config.pgkd.num_kd_steps else ():
        try:
            build_teacher(settings, settings.max_tokens or reply_limit(settings)).close()
        except TeacherUnavailableError as error:
            found.append(str(error))
    return found


def estimate(shown: Preview, task: Task, config: PGKDConfig, teachers: Sequence[str], prices: PriceTable) -> Estimate:
    """What the run will take, before anything is trained: between a student without and one full of mistakes.

    Args:
        shown: With a student full of mistakes.
        teachers: Names in the price table.
    """
    without = replace(shown, requests=_requests(task, config, shown.template, mistakes=False))
    few = [prompt_tokens(messages) for messages in without.prompts]
    many = [prompt_tokens(messages) for messages in shown.prompts]
    return estimate_with(few, many, task, config, teachers, prices)


def estimate_with(
    least: Sequence[int],
    most: Sequence[int],
    task: Task,
    config: PGKDConfig,
    teachers: Sequence[str],
    prices: PriceTable,
) -> Estimate:
    """What the run will take with prompts of these sizes.

    Args:
        least, most: Tokens of each prompt of a KD step, with as few and as many rows as there may be.
    """
    asked = config.pgkd.pgkd_batch_size
    longest = len(most) * reply_tokens(teacher_prompt(config.teacher), task.train, config.teacher, asked)
    text_tokens = sum(estimate_tokens(row.text) for row in task.train) / len(task.train)
    shortest = min(round(asked * (text_tokens + TOKENS_AROUND_SAMPLE)), longest)
    verifying: list[int] = []
    if config.guardrails.verify:  # at most every sample, at least none
        verifying = [zero_shot_tokens(task.taxonomy, task.description, config) + round(text_tokens)] * asked
        longest += asked * LABEL_TOKENS
    steps = config.pgkd.num_kd_steps
    labelling: list[int] = []
    if steps and (asked_to_label := texts_to_label(task, config)):
        labels = asked_to_label + math.ceil(GOLD_ROWS / steps)  # a step's part of the rows that check the teacher
        labelling = [prompt_tokens(_labelling_prompt(task, config))] * labels
        shortest, longest = shortest + labels * SHORT_ANSWER, longest + labels * LABEL_TOKENS
    prompts = [*least, *labelling], [*most, *verifying, *labelling]
    return estimate_run(teachers, steps, *prompts, (shortest, longest), prices, config.teacher.batch)


def zero_shot_tokens(
    labels: Sequence[Label], task_description: str, config: PGKDConfig, few_shot: Sequence[Example] = ()
) -> int:
    """Of a zero-shot prompt without the text to be classified."""
    template = load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder)
    return prompt_tokens(template.render(zero_shot_values(labels, task_description, "", few_shot)))


def _labelling_prompt(task: Task, config: PGKDConfig) -> list[Message]:
    """With the first classes as candidates, and any rows of theirs."""
    if not texts_to_label(task, config):
        return []
    labels = task.taxonomy[:CANDIDATES]
    of_label = ([row for row in task.train if row.label == label.name][:ROWS_PER_CANDIDATE] for label in labels)
    rows = [Example(shown(row.text), row.label) for row in chain.from_iterable(of_label)]
    values = annotation_values(task.taxonomy, labels, task.description, shown(task.unlabelled[0]), rows, NONE)
    return annotation_prompt(config.teacher).render(values)


def _requests(task: Task, config: PGKDConfig, template: PromptTemplate, mistakes: bool) -> list[PromptRequest]:
    from pgkd_agent.teacher.prompting.requests import RequestPlanner

    if not config.pgkd.pgkd_batch_size:
        return []
    evaluation = evaluate(stand_in(task.validation, task.taxonomy, mistakes), task.validation, task.taxonomy)
    scored = score_rows(task.train, stand_in(task.train, task.taxonomy, mistakes), task.taxonomy)
    request = build_request(task, History.of(task.train), scored, evaluation, config, kd_step=1)
    return RequestPlanner.of(template, config).plan(request)


def stand_in(rows: tuple[Example, ...], taxonomy: tuple[Label, ...], mistakes: bool) -> Probabilities:
    """Probabilities of a student that takes every second row for the next class, or of one without mistakes."""
    index = {label.name: position for position, label in enumerate(taxonomy)}
    probabilities = np.full((len(rows), len(taxonomy)), 0.2 / len(taxonomy))
    for number, row in enumerate(rows):
        probabilities[number, (index[row.label] + (number % 2 if mistakes else 0)) % len(taxonomy)] += 0.8
    return probabilities
