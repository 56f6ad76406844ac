"""Open a teacher for a run: from settings, a LangChain chat model, or an object of the caller's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import PGKDConfig, TeacherSettings
from pgkd_agent.data import Task
from pgkd_agent.prompts import PromptTemplate
from pgkd_agent.protocols import Teacher
from pgkd_agent.runs import RunDirectory

if TYPE_CHECKING:
    from pgkd_agent.teacher.chain import OnRequest

MAX_REPLY_TOKENS = 4096
"""What even older hosted models write; a longer reply is cut off, and its whole samples are kept."""


@dataclass(frozen=True)
class OpenTeacher:
    """`teacher` is None where the run asks none."""

    teacher: Teacher | None
    model_id: str


def prompt_variant(settings: TeacherSettings) -> str:
    """The variant asked for; else `agent` in agent mode, `per_class` for local teachers, `paper`."""
    if settings.prompt:
        return settings.prompt
    if settings.mode == "agent":
        return "agent"
    return "per_class" if settings.is_local else "paper"


@contextmanager
def open_teacher(
    given: Any,
    template: PromptTemplate,
    task: Task,
    config: PGKDConfig,
    directory: RunDirectory | None,
    on_request: OnRequest | None,
    check: bool = True,
) -> Iterator[OpenTeacher]:
    """Build it, log its calls into the run directory, and close it in the end.

    Args:
        check: Whether to find out first that it answers.
    Raises:
        ConfigError, TeacherUnavailableError: See `build_teacher`.
    """
    if config.pgkd.num_kd_steps == 0:
        yield OpenTeacher(None, "none")
        return
    if hasattr(given, "write"):
        yield OpenTeacher(given, getattr(given, "model_id", type(given).__name__))
        return

    from pgkd_agent.teacher.agent import AgentTeacher
    from pgkd_agent.teacher.call_log import CallLog
    from pgkd_agent.teacher.chain import ChainTeacher
    from pgkd_agent.teacher.factory import ChatTeacher, build_teacher
    from pgkd_agent.tools import classification_report_tool

    if given is None:
        chat = build_teacher(config.teacher, reply_tokens(template, task, config), check)
    else:
        chat = ChatTeacher(given, type(given).__name__)
    log = CallLog(directory.calls if directory else ":memory:")
    try:
        if config.teacher.mode == "agent":
            teacher: Teacher = AgentTeacher(
                chat,
                template,
                config,
                lambda request: [classification_report_tool(lambda: request.report)],
                log,
            )
        else:
            teacher = ChainTeacher(chat, template, config, log, on_request)
        yield OpenTeacher(teacher, chat.model_id)
    finally:
        log.close()
        chat.close()


def reply_tokens(template: PromptTemplate, task: Task, config: PGKDConfig) -> int:
    """Room for the samples of one request: half again as long as the longest 5 % of training texts.

    Three characters a token is a cautious average for English; 48 tokens go to label and JSON, whose white space
    small models are generous with.
    """
    settings = config.teacher
    if settings.max_tokens is not None:
        return settings.max_tokens
    lengths = sorted(len(row.text) for row in task.train)
    long_text = lengths[int(0.95 * (len(lengths) - 1))]
    per_sample = 48 + math.ceil(1.5 * long_text / 3)
    samples = settings.samples_per_request if template.is_per_class else config.pgkd.pgkd_batch_size
    limit = min(MAX_REPLY_TOKENS, settings.context_tokens // 2) if settings.is_local else MAX_REPLY_TOKENS
    return min(64 + samples * per_sample, limit)
