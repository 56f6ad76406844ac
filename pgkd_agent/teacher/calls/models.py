"""Open the chat models of teachers, each behind its gate, over one log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.call_log import CallLog
from pgkd_agent.teacher.calls.calling import Caller, OnWait
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.replies import Replies
from pgkd_agent.teacher.providers.factory import around, build_teacher


@contextmanager
def open_models(
    given: Any,
    teachers: Sequence[tuple[TeacherSettings, int]],
    seed: int,
    budget: Budget,
    log: Path | None = None,
    replayed_steps: int = 0,
    one_server: bool = True,
    stops_at_failure: bool = True,
    on_wait: OnWait | None = None,
) -> Iterator[list[GatedChatModel]]:
    """The chat models of settings, or the one that is given, ready for calls; closed in the end.

    Args:
        given: A LangChain chat model; the first settings are those of its calls. None builds one for each.
        teachers: Settings, and tokens of the longest reply.
        log: File for all calls; what is in it is not asked again. None keeps them until the end.
        replayed_steps, one_server: See `Replies`.
        stops_at_failure, on_wait: See `Caller`.
    Raises:
        ConfigError, TeacherUnavailableError: See `build_teacher` and `Caller`.
        StorageError: Log or cache cannot be opened.
    """
    with ExitStack() as stack:
        calls = stack.enter_context(closing(CallLog(log or ":memory:")))
        budget.count(calls.charged())
        cache = teachers[0][0].cache
        replies = stack.enter_context(closing(Replies(calls, cache, replayed_steps, one_server)))
        models = []
        for settings, max_tokens in teachers if given is None else teachers[:1]:
            if settings.batch and given is not None:
                raise ConfigError(
                    "`teacher.batch` needs a teacher that is named, such as openai:NAME; how a chat model object of "
                    "your own has batch jobs made is not known"
                )
            chat = build_teacher(settings, max_tokens) if given is None else around(given)
            stack.callback(chat.close)
            models.append(GatedChatModel(Caller(chat, settings, seed, replies, budget, stops_at_failure, on_wait)))
        yield models
