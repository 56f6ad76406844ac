"""Performance-Guided Knowledge Distillation (Di Palo et al. 2024): an LLM teaches a small text classifier.

Names are imported on first use, so that `import pgkd_agent` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pgkd_agent.version import VERSION

if TYPE_CHECKING:
    from pgkd_agent.answering.cascade import Answer, Cascade, CascadeStats, Routed, open_llm
    from pgkd_agent.config import PGKDConfig, build_config
    from pgkd_agent.data import Labels, Rows, Task, read_examples
    from pgkd_agent.errors import PGKDError
    from pgkd_agent.loop.guardrails import Check, ScreenState
    from pgkd_agent.loop.history import History
    from pgkd_agent.loop.protocols import Teacher
    from pgkd_agent.pipeline import DistillResult, distill, resume
    from pgkd_agent.runs.observer import Observer
    from pgkd_agent.student.classifier import Prediction, StudentClassifier
    from pgkd_agent.teacher.chain import WrittenSamples
    from pgkd_agent.teacher.prompting.linting import lint_prompt
    from pgkd_agent.teacher.standalone import open_chain
    from pgkd_agent.types import Example, GeneratedSample, Label, TeacherReply, TeacherRequest

__version__ = VERSION

_HOME = {
    "Answer": "pgkd_agent.answering.cascade",
    "Cascade": "pgkd_agent.answering.cascade",
    "CascadeStats": "pgkd_agent.answering.cascade",
    "Check": "pgkd_agent.loop.guardrails",
    "DistillResult": "pgkd_agent.pipeline",
    "Example": "pgkd_agent.types",
    "GeneratedSample": "pgkd_agent.types",
    "History": "pgkd_agent.loop.history",
    "Label": "pgkd_agent.types",
    "Labels": "pgkd_agent.data",
    "Observer": "pgkd_agent.runs.observer",
    "PGKDConfig": "pgkd_agent.config",
    "PGKDError": "pgkd_agent.errors",
    "Prediction": "pgkd_agent.student.classifier",
    "Routed": "pgkd_agent.answering.cascade",
    "Rows": "pgkd_agent.data",
    "ScreenState": "pgkd_agent.loop.guardrails",
    "StudentClassifier": "pgkd_agent.student.classifier",
    "Task": "pgkd_agent.data",
    "Teacher": "pgkd_agent.loop.protocols",
    "TeacherReply": "pgkd_agent.types",
    "TeacherRequest": "pgkd_agent.types",
    "WrittenSamples": "pgkd_agent.teacher.chain",
    "build_config": "pgkd_agent.config",
    "distill": "pgkd_agent.pipeline",
    "lint_prompt": "pgkd_agent.teacher.prompting.linting",
    "open_chain": "pgkd_agent.teacher.standalone",
    "open_llm": "pgkd_agent.answering.cascade",
    "read_examples": "pgkd_agent.data",
    "resume": "pgkd_agent.pipeline",
}

__all__ = [
    "Answer",
    "Cascade",
    "CascadeStats",
    "Check",
    "DistillResult",
    "Example",
    "GeneratedSample",
    "History",
    "Label",
    "Labels",
    "Observer",
    "PGKDConfig",
    "PGKDError",
    "Prediction",
    "Routed",
    "Rows",
    "ScreenState",
    "StudentClassifier",
    "Task",
    "Teacher",
    "TeacherReply",
    "TeacherRequest",
    "WrittenSamples",
    "build_config",
    "distill",
    "lint_prompt",
    "open_chain",
    "open_llm",
    "read_examples",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
