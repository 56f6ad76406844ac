"""The LLM by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pgkd_agent.config import PGKDConfig
from pgkd_agent.experiments.methods.method import TEACHER, Count, Method, Options
from pgkd_agent.experiments.methods.rows import take_shots
from pgkd_agent.experiments.methods.setting import Outcome, Setting
from pgkd_agent.experiments.zero_shot import evaluate_zero_shot, with_description
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt
from pgkd_agent.types import Example

ZERO_SHOT_PROMPT, FEW_SHOT_PROMPT = "paper", "few_shot"
"""The default of the settings, and what stands in for it where there are examples."""


class ZeroShotOptions(Options):
    rows: Count | None = None
    """Test rows to ask about, drawn once and the same for every seed; None takes all."""


class FewShotOptions(ZeroShotOptions):
    shots: Count = 1
    """Training rows of each class."""


def zero_shot(setting: Setting, options: ZeroShotOptions) -> Outcome:
    """The teacher of the settings labels the test rows, without examples (the paper's appendix A.2)."""
    return _label(setting, options.rows, ())


def few_shot(setting: Setting, options: FewShotOptions) -> Outcome:
    """As `zero_shot`, with real rows of each class in the prompt."""
    shots = take_shots(setting, options.shots)
    return _label(replace(setting, config=_with_few_shot_prompt(setting.config)), options.rows, shots)


def labelling_prompt(config: PGKDConfig) -> PromptTemplate:
    return load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder)


def _with_few_shot_prompt(config: PGKDConfig) -> PGKDConfig:
    is_default = config.zero_shot.prompt == ZERO_SHOT_PROMPT
    return config.changed({"zero_shot.prompt": FEW_SHOT_PROMPT}) if is_default else config


def _label(setting: Setting, rows: int | None, shots: Sequence[Example]) -> Outcome:
    test = setting.task.test
    everything = range(len(test))
    asked = everything if rows is None or rows >= len(test) else sorted(random.Random(0).sample(everything, rows))
    answers = setting.folder / "answers.jsonl"
    chosen = [test[number] for number in asked]
    config = with_description(setting.config, setting.task)
    result = evaluate_zero_shot(chosen, setting.task.taxonomy, config, answers, few_shot=shots)
    return Outcome(
        result.predicted,
        predict_seconds=result.seconds if result.asked == len(chosen) and not config.teacher.batch else None,
        asked=tuple(asked),
        requests=len(result.predicted),
        usage=result.usage,
    )


METHODS = (
    Method(
        "zero_shot",
        zero_shot,
        ZeroShotOptions,
        TEACHER,
        prompts=lambda config: [labelling_prompt(config)],
        llm_predicts=True,
    ),
    Method(
        "few_shot",
        few_shot,
        FewShotOptions,
        TEACHER,
        prompts=lambda config: [labelling_prompt(_with_few_shot_prompt(config))],
        llm_predicts=True,
    ),
)
