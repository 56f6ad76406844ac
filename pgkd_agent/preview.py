"""The first prompt of a run before anything is trained, for dry runs and prompt work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pgkd_agent.algorithm import build_request
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.evidence import score_rows
from pgkd_agent.history import History
from pgkd_agent.metrics import evaluate
from pgkd_agent.prompts import Message, load_prompt
from pgkd_agent.teachers import prompt_variant
from pgkd_agent.types import Example, Label, Probabilities


@dataclass(frozen=True, slots=True)
class Preview:
    prompt: str
    messages: list[Message]
    requests_per_step: int


def preview(task: Task, config: PGKDConfig) -> Preview:
    """Render with a stand-in for the student that errs on every second row, so that every pool shows.

    The stand-in's predictions and report mean nothing; sizes and layout are those of the real prompt.
    """
    from pgkd_agent.teacher.requests import plan_prompt_requests

    template = load_prompt(prompt_variant(config.teacher), folder=config.teacher.prompt_folder)
    evaluation = evaluate(stand_in(task.validation, task.taxonomy), task.validation, task.taxonomy)
    scored = score_rows(task.train, stand_in(task.train, task.taxonomy), task.taxonomy)
    request = build_request(task, History.of(task.train), scored, evaluation, config, kd_step=1)
    planned = plan_prompt_requests(request, template, config)
    return Preview(template.name, template.render(planned[0].values), len(planned))


def stand_in(rows: tuple[Example, ...], taxonomy: tuple[Label, ...]) -> Probabilities:
    """Probabilities of a student that takes every second row for the next class."""
    index = {label.name: position for position, label in enumerate(taxonomy)}
    probabilities = np.full((len(rows), len(taxonomy)), 0.2 / len(taxonomy))
    for number, row in enumerate(rows):
        probabilities[number, (index[row.label] + number % 2) % len(taxonomy)] += 0.8
    return probabilities
