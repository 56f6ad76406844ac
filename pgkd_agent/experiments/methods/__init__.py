"""Methods to compare, each a function of a `Setting` and its own options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods.evokd import evokd, evokd_init
from pgkd_agent.experiments.methods.generated import auggpt, prompt_file, sungen, zerogen
from pgkd_agent.experiments.methods.loops import control, control_eda, frozen, pgkd, plain
from pgkd_agent.experiments.methods.prompted import FEW_SHOT_PROMPT, ZERO_SHOT_PROMPT, few_shot, zero_shot
from pgkd_agent.experiments.methods.rows import eda, gradual, no_augment
from pgkd_agent.experiments.methods.setting import ClassCounts, Outcome, PlainFits, Setting
from pgkd_agent.teacher.opening import teacher_prompt
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt

__all__ = [
    "LOOPS",
    "METHODS",
    "REPEATS",
    "WITH_LLM",
    "ClassCounts",
    "Outcome",
    "PlainFits",
    "Setting",
    "check_method",
    "prompt_hash",
    "run_method",
]

METHODS: dict[str, Callable[..., Outcome]] = {
    "plain": plain,
    "full_shot": plain,
    "control": control,
    "control_eda": control_eda,
    "no_augment": no_augment,
    "eda": eda,
    "gradual": gradual,
    "zerogen": zerogen,
    "sungen": sungen,
    "auggpt": auggpt,
    "evokd": evokd,
    "evokd_init": evokd_init,
    "pgkd": pgkd,
    "frozen": frozen,
    "zero_shot": zero_shot,
    "few_shot": few_shot,
}
"""`full_shot` is `plain` on all rows that there are: the comparison sees to that."""

WITH_LLM = ("pgkd", "zerogen", "sungen", "auggpt", "evokd", "evokd_init", "zero_shot", "few_shot")
COUNTS = ("shots", "steps", "num_aug", "per_class", "rounds", "rows", "passes", "samples")
"""Options that are whole numbers of at least 1."""

LOOPS = ("pgkd", "frozen")
"""Those that take samples of a teacher, step by step."""

PROMPTS_OF = {
    "sungen": ("zerogen",),
    "evokd": ("evokd_analysis", "evokd_writing"),
    "evokd_init": ("evokd_analysis", "evokd_writing", "auggpt"),
}
"""Under `prompts/methods`, where they are not of the method's own name."""

REPEATS = ("control", "control_eda")
"""Those that repeat what one of `LOOPS` accepted."""


def run_method(name: str, setting: Setting, options: Mapping[str, Any] | None = None) -> Outcome:
    """Train, or ask, and evaluate on the test rows.

    Raises:
        ConfigError: No such method or option, or the task has no test rows.
        PGKDError: See `pgkd_agent.errors`.
    """
    check_method(name, options or {})
    if not setting.task.test:
        raise ConfigError("methods are compared on test rows, and there are none")
    return METHODS[name](setting, **(options or {}))


def check_method(name: str, options: Mapping[str, Any]) -> None:
    """
    Raises:
        ConfigError: No such method, or it has no such option.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, n=1)
        hint = f" (closest: {close[0]!r})" if close else ""
        raise ConfigError(f"no method {name!r}{hint}; there are {', '.join(METHODS)}")
    known = dict(list(inspect.signature(METHODS[name]).parameters.items())[1:])
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"method {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    for option, value in options.items():
        if value is None and known[option].default is None:
            continue
        if option in COUNTS and (type(value) is not int or value < 1):
            raise ConfigError(f"method {name!r}: {option} is {value!r}, expected a whole number of at least 1")
        if option == "at_once" and type(value) is not bool:
            raise ConfigError(f"method {name!r}: at_once is {value!r}, expected true or false")
        if option == "alpha" and (not isinstance(value, int | float) or not 0 < value < 1):
            raise ConfigError(f"method {name!r}: alpha is {value!r}, expected a number between 0 and 1")
        if option == "wordnet" and not isinstance(value, str):
            raise ConfigError(f"method {name!r}: wordnet is {value!r}, expected the path of a folder")


def prompt_hash(name: str, config: PGKDConfig) -> str | None:
    """Of the prompts that a method asks its LLM with; None for a method without one."""
    if name not in WITH_LLM:
        return None
    if name == "pgkd":
        return "+".join(template.hash for template in _prompts_of_pgkd(config))
    own, folder = config.zero_shot.prompt, config.teacher.prompt_folder
    labelling = FEW_SHOT_PROMPT if name == "few_shot" and own == ZERO_SHOT_PROMPT else own
    if name in ("zero_shot", "few_shot"):
        return load_prompt(labelling, "zero_shot", folder).hash
    hashes = [load_prompt(str(prompt_file(prompt))).hash for prompt in PROMPTS_OF.get(name, (name,))]
    if name in ("evokd", "evokd_init"):
        hashes.append(load_prompt(labelling, "zero_shot", folder).hash)
    return "+".join(hashes)


def _prompts_of_pgkd(config: PGKDConfig) -> Iterator[PromptTemplate]:
    """Also what an agent falls back to, and what samples are verified with."""
    teacher = config.teacher
    yield teacher_prompt(teacher)
    if teacher.mode == "agent":
        yield teacher_prompt(teacher.model_copy(update={"mode": "chain", "prompt": None}))
    if config.guardrails.verify:
        yield load_prompt(config.zero_shot.prompt, "zero_shot", teacher.prompt_folder)
