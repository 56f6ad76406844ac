"""Performance-Guided Knowledge Distillation (Di Palo et al. 2024): an LLM teaches a small text classifier.

Names are imported on first use, so that `import pgkd_agent` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgkd_agent.answering.cascade import Answer, Cascade, Routed, open_llm
    from pgkd_agent.config import PGKDConfig, build_config
    from pgkd_agent.data import Labels, Rows, Task
    from pgkd_agent.errors import PGKDError
    from pgkd_agent.pipeline import DistillResult, distill, resume
    from pgkd_agent.runs.observer import Observer
    from pgkd_agent.student.classifier import Prediction, StudentClassifier
    from pgkd_agent.teacher.chain import WrittenSamples
    from pgkd_agent.teacher.standalone import open_chain
    from pgkd_agent.types import Example, Label

__version__ = "0.2.0"

_HOME = {
    "Answer": "pgkd_agent.answering.cascade",
    "Cascade": "pgkd_agent.answering.cascade",
    "DistillResult": "pgkd_agent.pipeline",
    "Example": "pgkd_agent.types",
    "Label": "pgkd_agent.types",
    "Labels": "pgkd_agent.data",
    "Observer": "pgkd_agent.runs.observer",
    "PGKDConfig": "pgkd_agent.config",
    "PGKDError": "pgkd_agent.errors",
    "Prediction": "pgkd_agent.student.classifier",
    "Routed": "pgkd_agent.answering.cascade",
    "Rows": "pgkd_agent.data",
    "StudentClassifier": "pgkd_agent.student.classifier",
    "Task": "pgkd_agent.data",
    "WrittenSamples": "pgkd_agent.teacher.chain",
    "build_config": "pgkd_agent.config",
    "distill": "pgkd_agent.pipeline",
    "open_chain": "pgkd_agent.teacher.standalone",
    "open_llm": "pgkd_agent.answering.cascade",
    "resume": "pgkd_agent.pipeline",
}

__all__ = [
    "Answer",
    "Cascade",
    "DistillResult",
    "Example",
    "Label",
    "Labels",
    "Observer",
    "PGKDConfig",
    "PGKDError",
    "Prediction",
    "Routed",
    "Rows",
    "StudentClassifier",
    "Task",
    "WrittenSamples",
    "build_config",
    "distill",
    "open_chain",
    "open_llm",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
