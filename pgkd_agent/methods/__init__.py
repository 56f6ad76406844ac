"""Methods to compare, each a function of a `Setting` and its own options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.methods.generated import auggpt, prompt_file, zerogen
from pgkd_agent.methods.loops import control, control_eda, frozen, pgkd, plain
from pgkd_agent.methods.prompted import zero_shot
from pgkd_agent.methods.rows import eda, gradual, no_augment
from pgkd_agent.methods.setting import ClassCounts, Outcome, PlainFits, Setting
from pgkd_agent.prompts import load_prompt
from pgkd_agent.teachers import teacher_prompt

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
    "control": control,
    "control_eda": control_eda,
    "no_augment": no_augment,
    "eda": eda,
    "gradual": gradual,
    "zerogen": zerogen,
    "auggpt": auggpt,
    "pgkd": pgkd,
    "frozen": frozen,
    "zero_shot": zero_shot,
}

WITH_LLM = ("pgkd", "zerogen", "auggpt", "zero_shot")
COUNTS = ("shots", "steps", "num_aug", "per_class")
"""Options that are whole numbers of at least 1."""

LOOPS = ("pgkd", "frozen")
"""Those that take samples of a teacher, step by step."""

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
    known = list(inspect.signature(METHODS[name]).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"method {name!r} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    for option in COUNTS:
        value = options.get(option)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"method {name!r}: {option} is {value!r}, expected a whole number of at least 1")


def prompt_hash(name: str, config: PGKDConfig) -> str | None:
    """Of the prompt that a method asks its LLM with; None for a method without one."""
    if name == "pgkd":
        return teacher_prompt(config.teacher).hash
    if name == "zero_shot":
        return load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder).hash
    return load_prompt(str(prompt_file(name))).hash if name in WITH_LLM else None
