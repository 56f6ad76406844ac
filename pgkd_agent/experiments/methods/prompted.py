"""The LLM by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods.rows import take_shots
from pgkd_agent.experiments.methods.setting import Outcome, Setting
from pgkd_agent.experiments.zero_shot import evaluate_zero_shot, with_description
from pgkd_agent.types import Example

ZERO_SHOT_PROMPT, FEW_SHOT_PROMPT = "paper", "few_shot"
"""The default of the settings, and what stands in for it where there are examples."""


def zero_shot(setting: Setting, rows: int | None = None) -> Outcome:
    """The teacher of the settings labels the test rows, without examples (the paper's appendix A.2).

    Args:
        rows: Test rows to ask about, drawn once and the same for every seed; None takes all.
    """
    return _label(setting, rows, ())


def few_shot(setting: Setting, shots: int = 1, rows: int | None = None) -> Outcome:
    """As `zero_shot`, with real rows of each class in the prompt.

    Args:
        shots: Training rows of each class.
        rows: As that of `zero_shot`.
    """
    settings = setting.config.zero_shot
    if settings.prompt == ZERO_SHOT_PROMPT:
        settings = settings.model_copy(update={"prompt": FEW_SHOT_PROMPT})
    config = setting.config.model_copy(update={"zero_shot": settings})
    return _label(replace(setting, config=config), rows, take_shots(setting, shots))


def _label(setting: Setting, rows: int | None, shots: Sequence[Example]) -> Outcome:
    if setting.teacher is not None:
        raise ConfigError("zero-shot and few-shot ask the teacher of the settings, not one that is given")
    started = time.perf_counter()
    setting.folder.mkdir(parents=True, exist_ok=True)
    test = setting.task.test
    everything = range(len(test))
    asked = everything if rows is None or rows >= len(test) else sorted(random.Random(0).sample(everything, rows))
    answers = setting.folder / "answers.jsonl"
    chosen = [test[number] for number in asked]
    config = with_description(setting.config, setting.task)
    result = evaluate_zero_shot(chosen, setting.task.taxonomy, config, answers, few_shot=shots)
    return Outcome(
        result.report,
        result.predicted,
        predict_seconds=result.seconds if result.asked == len(chosen) else None,
        asked=tuple(asked),
        requests=len(result.predicted),
        usage=result.usage,
        seconds=time.perf_counter() - started,
    )
