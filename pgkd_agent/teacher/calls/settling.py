"""How a try ended: its reply, or its failure, and what it is charged with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langsmith import tracing_context

from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, RawReply
from pgkd_agent.teacher.calls.failures import Kind, classify, may_be_billed, redacted
from pgkd_agent.teacher.calls.question import Question
from pgkd_agent.teacher.prompting.tokens import estimate_tokens, most_tokens
from pgkd_agent.teacher.providers.dialect import (
    alternatives,
    emptiness,
    finish_reason,
    longest_reply,
    reply_text,
    token_usage,
)
from pgkd_agent.text import well_formed
from pgkd_agent.types import TokenUsage

T = TypeVar("T")

OVERHEAD_TOKENS = 512
"""What chat templates and providers' own instructions may add to a prompt."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a try: `reply`, or else `failure`."""

    charged: TokenUsage
    reply: RawReply | None = None
    failure: Exception | None = None

    @property
    def name(self) -> str:
        """For the log."""
        return ANSWERED if self.failure is None else classify(self.failure).name


def most_of(call: Call, model: BaseChatModel) -> TokenUsage:
    """Upper bounds for a call: a token is a byte at least. Where replies have no limit, tokens have no cap."""
    return TokenUsage(most_tokens(_sent(call)) + OVERHEAD_TOKENS, longest_reply(model) or 0)


def outcome_of(question: Question, call: Call, most: TokenUsage, send: Callable[[], AIMessage]) -> Outcome:
    """Send, and read what comes.

    A call that failed and may have been billed counts with the most that it could take; one that was answered without
    usage, with an estimate. A filter that stood in for the model, or an answer without a message, is an empty reply.

    Args:
        most: That the call may take; by a batch job or not, as what it took.
    """
    started = time.perf_counter()
    try:
        answer = send()
        seconds, text = time.perf_counter() - started, well_formed(question.text_of(answer))
        charged = known(token_usage(answer), call, reply_text(answer), most)
        others = alternatives(answer) if question.logprobs else ()
        reply = RawReply(text, finish_reason(answer), charged, seconds, emptiness(answer), others)
    except Exception as error:
        charged = most if may_be_billed(error) else TokenUsage()
        if classify(error) not in (Kind.REFUSED, Kind.EMPTY):
            return Outcome(charged, failure=error)
        reply = _reply_of(error, charged, time.perf_counter() - started)
    return Outcome(charged, reply)


def known(reported: TokenUsage, call: Call, text: str, most: TokenUsage) -> TokenUsage:
    """What a call took; estimated where its provider does not say so, in full where there is nothing to go by."""
    tokens_in = reported.input_tokens or estimate_tokens(_sent(call))
    tokens_out = reported.output_tokens or estimate_tokens(text) or most.output_tokens
    is_reported = reported.input_tokens and (reported.output_tokens or not text)
    taken = reported if is_reported else TokenUsage(tokens_in, tokens_out, 1)
    return taken.in_batch() if most.is_batch else taken


def _reply_of(error: Exception, charged: TokenUsage, seconds: float) -> RawReply:
    if classify(error) is not Kind.EMPTY:
        return RawReply("", "content_filter", TokenUsage(), seconds)
    note = f"{type(error).__name__}: {redacted((str(error).splitlines() or [''])[0])[:200]}"
    return RawReply("", "", replace(charged, estimated_calls=1), seconds, note)


def _sent(call: Call) -> str:
    """All that is sent, as one text."""
    return json.dumps([call.messages, call.settings], ensure_ascii=False)


def unseen(send: Callable[[], T]) -> T:
    """Out of sight of LangChain's callbacks and tracing: they see the gated model, and would count its call twice."""

    def untraced() -> T:
        with tracing_context(enabled=False):
            return send()

    return Context().run(untraced)
