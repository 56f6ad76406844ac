"""The one way to a model: what was answered before comes from the log, all else under budget, pace and retries."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from pgkd_agent.budget import Budget
from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import PGKDError
from pgkd_agent.prompts import Message
from pgkd_agent.seeding import derive_seed
from pgkd_agent.teacher.call_log import Call, CallLog, RawReply
from pgkd_agent.teacher.dialect import finish_reason, longest_reply, reply_text, token_usage
from pgkd_agent.teacher.factory import ChatTeacher
from pgkd_agent.teacher.failures import Kind, call_with_retries, classify, may_be_billed, unavailable
from pgkd_agent.teacher.pacing import Pace
from pgkd_agent.tokens import most_tokens
from pgkd_agent.types import TokenUsage

Settings = Mapping[str, Any]
"""What goes along with the messages: sampling, the form of the answer, tools."""

_MESSAGE_TYPES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "assistant": AIMessage,
}

OVERHEAD_TOKENS = 512
"""What chat templates and providers' own instructions may add to a prompt."""
UNLIMITED_REPLY_TOKENS = 16384
"""Held back for a reply where a model was built without a limit."""
LONG_PROMPT_BYTES = 1000
"""From here on a prompt shows how many tokens a byte of this project's prompts takes."""
CAUTION = 1.25
"""Tokens a byte of the next prompt, as a multiple of the most seen so far in a run."""


@dataclass(frozen=True, slots=True)
class CallId:
    """Which call of a run this is; its sampling seed derives from it. `attempt` counts from 0."""

    kd_step: int
    request_index: int
    attempt: int = 0


CHECK = CallId(0, -1)
"""The call that finds out whether the teacher answers at all."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask.

    Attributes:
        prompt_hash: Of the template behind the messages, for the log.
        schema: JSON Schema of the answer; None for one in words.
        form: The same in words, added to the last message where the schema does not go along.
        same_beginning: Calls that follow begin with the same long text; worth remembering where that is possible.
    """

    call_id: CallId
    messages: Sequence[Message]
    prompt_hash: str = ""
    schema: Mapping[str, Any] | None = None
    form: str = ""
    same_beginning: bool = False


class Caller:
    """Calls one model; may be shared by threads.

    Args:
        settings: Retries, pace, and the cache that runs share.
        seed: Of the run.
        log: Of the run; what it holds was paid by this run.
    Raises:
        ConfigError: There is a cap on money, and no price for this teacher.
    """

    def __init__(self, chat: ChatTeacher, settings: TeacherSettings, seed: int, log: CallLog, budget: Budget) -> None:
        self.chat = chat
        self.settings = settings
        self._seed = seed
        self._log = log
        self._budget = budget
        self._cache = CallLog(settings.cache) if settings.cache else None
        self._pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        self._tokens_per_byte = 0.0
        budget.check(chat.model_id)

    def with_model(self, chat: ChatTeacher) -> Caller:
        """The same way to another model: log, budget and pace are shared."""
        other = copy.copy(self)
        other.chat = chat
        other._tokens_per_byte = 0.0
        return other

    def close(self) -> None:
        if self._cache:
            self._cache.close()
        self.chat.close()

    def check(self) -> None:
        """Find out whether the teacher answers: without a call where that is possible, else with one of a few tokens.

        Raises:
            TeacherUnavailableError: It cannot be reached, or refuses.
        """
        if self.chat.check_free:
            self.chat.check_free()
        else:
            self.call(Question(CHECK, (Message("human", "Answer with the word ok."),)))

    def call(self, question: Question) -> RawReply:
        """Ask, unless the reply is in the log; it is there before it is returned.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherContextError: The prompt is longer than the model takes.
            BudgetExceededError: The call could exceed a cap of the run.
        """

        def call_of(settings: Settings) -> Call:
            messages = tuple(question.messages)
            if question.form and settings.get("level") in ("text", "json_object"):
                last = messages[-1]
                messages = (*messages[:-1], replace(last, content=f"{last.content}\n\n{question.form}"))
            plain = [asdict(message) for message in messages]
            return self.record(question.call_id, question.prompt_hash, settings, plain)

        def send(model: Runnable[Any, AIMessage], call: Call) -> AIMessage:
            return model.invoke([_MESSAGE_TYPES[row["role"]](content=row["content"]) for row in call.messages])

        return self.exchange(question.call_id, call_of, send, reply_text, question.schema, question.same_beginning)

    def exchange(
        self,
        call_id: CallId,
        call_of: Callable[[Settings], Call],
        send: Callable[[Runnable[Any, AIMessage], Call], AIMessage],
        text_of: Callable[[AIMessage], str],
        schema: Mapping[str, Any] | None = None,
        same_beginning: bool = False,
    ) -> RawReply:
        """One call in any form: from the log or the cache that runs share, else under budget, pace and retries.

        Args:
            call_of: What is sent with the given settings.
            send: Sends it, with the model bound to these settings.
            text_of: What of the answer goes into the log.
        Raises:
            TeacherUnavailableError, TeacherContextError, BudgetExceededError: See `call`.
        """
        dialect, model = self.chat.dialect, self.chat.model
        seed = derive_seed(self._seed, call_id.kd_step, f"request/{call_id.request_index}/{call_id.attempt}")
        wanted = dialect.wanted(model, seed, schema, same_beginning)
        meant = call_of(wanted)  # the key is of this: what is dropped on the way may not change it
        if known := self._known(meant):
            return known
        settings = wanted

        def attempt() -> tuple[Call, RawReply]:
            nonlocal settings
            settings = dialect.allowed(wanted)
            call = call_of(settings)
            bound = dialect.bind(model, settings)
            started = time.perf_counter()
            answer = self._within_limits(lambda: send(bound, call), call)
            seconds = time.perf_counter() - started
            return call, RawReply(text_of(answer), finish_reason(answer), token_usage(answer), seconds)

        sent, reply = self._persist(meant, attempt, lambda error: dialect.drop(error, settings))
        self._log.append(meant.key, sent, reply)
        if self._cache:
            self._cache.append(meant.key, sent, reply)
        return reply

    def record(self, call_id: CallId, prompt_hash: str, settings: Settings, messages: Sequence[dict[str, Any]]) -> Call:
        return Call(
            call_id.kd_step,
            call_id.request_index,
            call_id.attempt,
            self.chat.model_id,
            prompt_hash,
            dict(settings),
            messages,
        )

    def _known(self, meant: Call) -> RawReply | None:
        if logged := self._log.find(meant.key):
            self._budget.count(self.chat.model_id, logged.usage)
            return logged
        if self._cache and (cached := self._cache.find(meant.key)):
            free = replace(cached, usage=TokenUsage())  # another run paid for it
            self._log.append(meant.key, meant, free)
            return free
        return None

    def _persist(
        self, meant: Call, attempt: Callable[[], tuple[Call, RawReply]], adapt: Callable[[BaseException], bool]
    ) -> tuple[Call, RawReply]:
        """Try until there is a reply, or an error that neither a retry nor a dropped setting can mend."""
        while True:
            try:
                return call_with_retries(attempt, self.settings.max_attempts, self.settings.max_retry_seconds)
            except PGKDError:
                raise
            except Exception as error:
                kind = classify(error)
                if kind is Kind.REFUSED:
                    return meant, RawReply("", "content_filter", TokenUsage(), 0.0)
                if kind is not Kind.REJECTED or not adapt(error):
                    raise unavailable(error, f"teacher {self.chat.model_id}") from error

    def _within_limits(self, ask: Callable[[], AIMessage], call: Call) -> AIMessage:
        """One try: its turn in the pace, and its tokens reserved."""
        size = most_tokens(json.dumps([call.messages, call.settings], ensure_ascii=False))
        most = self._most(size)
        self._pace.wait(most.input_tokens + most.output_tokens)
        with self._budget.reserved(self.chat.model_id, most) as settle:
            try:
                answer = ask()
            except Exception as error:
                if not may_be_billed(error):
                    settle(TokenUsage())
                raise
            used = token_usage(answer)
            if answer.usage_metadata:  # a provider that reports none is taken at the most
                settle(used)
        if size >= LONG_PROMPT_BYTES:
            self._tokens_per_byte = max(self._tokens_per_byte, used.input_tokens / size)
        return answer

    def _most(self, size: int) -> TokenUsage:
        """Upper bounds for a call of `size` bytes: a token is a byte at least; with answers, by their tokens a byte."""
        prompt = min(size, math.ceil(CAUTION * self._tokens_per_byte * size)) if self._tokens_per_byte else size
        return TokenUsage(prompt + OVERHEAD_TOKENS, longest_reply(self.chat.model) or UNLIMITED_REPLY_TOKENS)
