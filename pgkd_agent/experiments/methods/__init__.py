"""Methods to compare, each a record with a function of a `Setting` and its own options."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods import evokd, generated, loops, prompted, rows
from pgkd_agent.experiments.methods.method import METHODS, Method, Options, method_named, register_method
from pgkd_agent.experiments.methods.setting import ClassCounts, Outcome, PlainFits, Setting, Work
from pgkd_agent.files import make_folder, storing

__all__ = [
    "METHODS",
    "ClassCounts",
    "Method",
    "Options",
    "Outcome",
    "PlainFits",
    "Setting",
    "Work",
    "method_named",
    "register_method",
    "run_method",
]

for _method in (*loops.METHODS, *rows.METHODS, *generated.METHODS, *evokd.METHODS, *prompted.METHODS):
    register_method(_method)


def run_method(name: str, setting: Setting, options: Mapping[str, Any] | None = None) -> Outcome:
    """Train, or ask, and evaluate on the test rows.

    Raises:
        ConfigError: No such method or option, or the task has no test rows.
        PGKDError: See `pgkd_agent.errors`.
    """
    method = method_named(name)
    checked = method.checked(options or {})
    if not setting.task.test:
        raise ConfigError("methods are compared on test rows, and there are none")
    if method.asks_llm:
        with storing(setting.folder):
            make_folder(setting.folder)
    started = time.perf_counter()
    outcome = method.run(setting, checked)
    return replace(outcome, seconds=outcome.seconds + time.perf_counter() - started)
