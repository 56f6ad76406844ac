"""The LLM by itself."""

from __future__ import annotations

import time

from pgkd_agent.methods.setting import Outcome, Setting
from pgkd_agent.zero_shot import evaluate_zero_shot


def zero_shot(setting: Setting) -> Outcome:
    """The teacher of the settings labels the test rows, without examples (the paper's appendix A.2)."""
    started = time.perf_counter()
    setting.folder.mkdir(parents=True, exist_ok=True)
    task = setting.task
    result = evaluate_zero_shot(task.test, task.taxonomy, setting.config, setting.folder / "answers.jsonl")
    return Outcome(
        result.report,
        result.predicted,
        requests=len(result.predicted),
        usage=result.usage,
        seconds=time.perf_counter() - started,
    )
