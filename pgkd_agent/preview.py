"""The first prompts of a run before anything is trained: to be looked at, and for what the run will cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgkd_agent.algorithm import build_request
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.estimates import Estimate, estimate_run
from pgkd_agent.evidence import score_rows
from pgkd_agent.history import History
from pgkd_agent.metrics import evaluate
from pgkd_agent.prices import PriceTable
from pgkd_agent.prompts import Message, PromptTemplate
from pgkd_agent.teachers import reply_tokens, teacher_prompt
from pgkd_agent.tokens import estimate_tokens
from pgkd_agent.types import Example, Label, Probabilities

TOKENS_AROUND_SAMPLE = 14
"""Of a sample in JSON: keys, quotes, label."""


@dataclass(frozen=True, slots=True)
class Preview:
    template: PromptTemplate
    messages: list[Message]
    requests_per_step: int


def preview(task: Task, config: PGKDConfig) -> Preview:
    """Render with a stand-in for the student that errs on every second row, so that every pool shows.

    The stand-in's predictions and report mean nothing; sizes and layout are those of the real prompt.
    """
    template = teacher_prompt(config.teacher)
    prompts = _prompts(task, config, template, mistakes=True)
    return Preview(template, prompts[0], len(prompts))


def estimate(task: Task, config: PGKDConfig, prices: PriceTable) -> Estimate:
    """What the run will take, before anything is trained: between a student without and one full of mistakes."""
    template = teacher_prompt(config.teacher)
    few, many = (_sizes(_prompts(task, config, template, mistakes)) for mistakes in (False, True))
    replies = reply_sizes(task, config, len(many), reply_tokens(template, task, config))
    return estimate_run(config.teacher.spec, config.pgkd.num_kd_steps, few, many, replies, prices)


def reply_sizes(task: Task, config: PGKDConfig, requests: int, longest: int) -> tuple[int, int]:
    """Tokens of all replies of a KD step: samples as long as the average training text, and the longest there may be.

    Args:
        requests: In a step.
        longest: Reply that is not cut off.
    """
    lengths = [estimate_tokens(row.text) for row in task.train]
    per_sample = sum(lengths) / len(lengths) + TOKENS_AROUND_SAMPLE
    return min(round(config.pgkd.pgkd_batch_size * per_sample), requests * longest), requests * longest


def _sizes(prompts: Sequence[Sequence[Message]]) -> list[int]:
    return [estimate_tokens("\n".join(message.content for message in messages)) for messages in prompts]


def _prompts(task: Task, config: PGKDConfig, template: PromptTemplate, mistakes: bool) -> list[list[Message]]:
    """All prompts of the first KD step."""
    from pgkd_agent.teacher.requests import plan_prompt_requests

    evaluation = evaluate(stand_in(task.validation, task.taxonomy, mistakes), task.validation, task.taxonomy)
    scored = score_rows(task.train, stand_in(task.train, task.taxonomy, mistakes), task.taxonomy)
    request = build_request(task, History.of(task.train), scored, evaluation, config, kd_step=1)
    return [template.render(planned.values) for planned in plan_prompt_requests(request, template, config)]


def stand_in(rows: tuple[Example, ...], taxonomy: tuple[Label, ...], mistakes: bool) -> Probabilities:
    """Probabilities of a student that takes every second row for the next class, or of one without mistakes."""
    index = {label.name: position for position, label in enumerate(taxonomy)}
    probabilities = np.full((len(rows), len(taxonomy)), 0.2 / len(taxonomy))
    for number, row in enumerate(rows):
        probabilities[number, (index[row.label] + (number % 2 if mistakes else 0)) % len(taxonomy)] += 0.8
    return probabilities
