"""The one way to a model: what was answered before comes from the log, all else under budget, pace and retries.

What counts against the caps is what the log says, failed calls included: so a resumed run goes on with the same
account.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import BudgetExceededError, PGKDError, StorageError
from pgkd_agent.seeding import derive_seed
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, CallLog, RawReply
from pgkd_agent.teacher.calls.failures import SURVIVABLE, Kind, classify, may_be_billed, unavailable
from pgkd_agent.teacher.calls.pacing import Pace
from pgkd_agent.teacher.calls.retrying import call_with_retries, is_worth_another_try
from pgkd_agent.teacher.prompting.templates import Message
from pgkd_agent.teacher.prompting.tokens import estimate_tokens, most_tokens
from pgkd_agent.teacher.providers.dialect import finish_reason, longest_reply, reply_text, token_usage
from pgkd_agent.teacher.providers.factory import with_short_replies
from pgkd_agent.teacher.providers.provider import ChatTeacher
from pgkd_agent.text import well_formed
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
CHECK_REPLY_TOKENS = 256
"""For one word, and what a model may think before it."""


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
        replayed_steps: KD steps, from 0, that were stored whole before: all their calls are in the log.
        one_server: Whether the log is of a run, which may go on with another server for the same model; else the
            server is part of the key, as it is in the cache.
        stops_at_failure: Whether nothing more is sent after a call that failed for good, as is right for a job; what
            serves others goes on.
    Raises:
        ConfigError: A cap of the budget cannot be kept with this teacher.
        StorageError: The cache cannot be opened.
    """

    def __init__(
        self,
        chat: ChatTeacher,
        settings: TeacherSettings,
        seed: int,
        log: CallLog,
        budget: Budget,
        replayed_steps: int = 0,
        one_server: bool = True,
        stops_at_failure: bool = True,
    ) -> None:
        self.chat = chat
        self.settings = settings
        self._seed = seed
        self._log = log
        self._budget = budget
        self._replayed_steps = replayed_steps
        self._one_server = one_server
        self._stops_at_failure = stops_at_failure
        self._stopped = threading.Event()
        self._pace = Pace(settings.requests_per_minute, settings.tokens_per_minute, sleep=self._stopped.wait)
        self._cache = CallLog(settings.cache) if settings.cache else None
        retries = getattr(chat.model, "max_retries", 0)  # None leaves their number to the client
        budget.check(chat.model_id, longest_reply(chat.model) is not None, retries != 0)
        if self._cache:
            self._cache.open()

    def with_model(self, chat: ChatTeacher) -> Caller:
        """The same way to another model: log, budget and pace are shared."""
        other = copy.copy(self)
        other.chat = chat
        return other

    def stop(self) -> None:
        """Send nothing from now on, where one request failed for good and others are waiting."""
        self._stopped.set()

    def close(self) -> None:
        """Close the cache; the model is its owner's to close."""
        if self._cache:
            self._cache.close()

    def check(self) -> None:
        """Find out whether the teacher answers: without a call where that is possible, else with one of a few tokens.

        Raises:
            TeacherUnavailableError: It cannot be reached, or refuses.
        """
        if self.chat.check_free:
            self.chat.check_free()
        else:
            short = self.with_model(with_short_replies(self.chat, CHECK_REPLY_TOKENS))
            short.call(Question(CHECK, (Message("human", "Answer with the word ok."),)))

    def call(self, question: Question) -> RawReply:
        """Ask, unless the reply is in the log; it is there before it is returned.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherContextError: The prompt is longer than the model takes.
            BudgetExceededError: The call could exceed a cap of the run.
        """

        def send(model: Runnable[Any, AIMessage], call: Call) -> AIMessage:
            return model.invoke([_MESSAGE_TYPES[row["role"]](content=row["content"]) for row in call.messages])

        return self.exchange(
            question.call_id,
            lambda settings: self._call_of(question, settings),
            send,
            reply_text,
            question.schema,
            question.same_beginning,
        )

    def require_room(self, question: Question) -> None:
        """Of a run that has not begun: for this question, after the check.

        Raises:
            BudgetExceededError: The caps leave none.
        """
        wanted = self.chat.dialect.wanted(self.chat.model, self._seed, question.schema, question.same_beginning)
        calls = 1 if self.chat.check_free else 2
        self._budget.require_room(self.chat.model_id, self._most(self._call_of(question, wanted)), calls)

    def _call_of(self, question: Question, settings: Settings) -> Call:
        messages = tuple(question.messages)
        if question.form and settings.get("level") in ("text", "json_object"):
            last = messages[-1]
            messages = (*messages[:-1], replace(last, content=f"{last.content}\n\n{question.form}"))
        plain = [asdict(message) for message in messages]
        return self.record(question.call_id, question.prompt_hash, settings, plain)

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
        meant = call_of(wanted)  # the keys are of this: what is dropped on the way may not change them
        if known := self._known(meant):
            return known
        if self._cache and (cached := self._cache.find(meant.key_at(self.chat.server))):
            return self._found(meant, cached)
        settings = wanted

        def attempt() -> tuple[Call, RawReply]:
            nonlocal settings
            settings = dialect.allowed(wanted)
            call = call_of(settings)
            bound = dialect.bind(model, settings)
            return call, self._try(self._key(meant), call, lambda: send(bound, call), text_of)

        sent, reply = self._persist(attempt, lambda error: dialect.drop(error, settings))
        if self._cache:
            self._cache.add(meant.key_at(self.chat.server), sent, reply)
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

    def _key(self, meant: Call) -> str:
        return meant.key if self._one_server else meant.key_at(self.chat.server)

    def _known(self, meant: Call) -> RawReply | None:
        """The reply from the run's own log; None where there is none."""
        if logged := self._log.find(self._key(meant)):
            return logged
        if meant.kd_step < self._replayed_steps:
            raise self._missing(meant)
        return None

    def _found(self, meant: Call, cached: RawReply) -> RawReply:
        """A reply that another run paid for: free, or with the same account as if it had been sent now."""
        if not self.settings.cache_counts:
            free = replace(cached, usage=TokenUsage())
            self._log.add(self._key(meant), meant, free)
            return free
        most = self._most(meant)
        with self._budget.reserved(self.chat.model_id, most) as settle:
            row = self._log.begin(self._key(meant), meant, most)
            charged = most if cached.usage == TokenUsage() else cached.usage
            settle(charged)
            self._log.end(row, ANSWERED, charged, cached)
        return cached

    def _missing(self, meant: Call) -> PGKDError:
        """How a call of a stored step failed then; it is not sent again."""
        kind, text = self._log.find_failure(self._key(meant)) or ("", "")
        for survivable, error in SURVIVABLE.items():
            if kind == survivable.name:
                return error(text)
        return StorageError(
            f"KD step {meant.kd_step} is stored, but its request {meant.request_index} to {meant.model} is not in the "
            "run's call log: prompt, settings, model or machine are others than before. Nothing was sent; put back "
            "what was changed, or start a new run"
        )

    def _persist(
        self, attempt: Callable[[], tuple[Call, RawReply]], adapt: Callable[[BaseException], bool]
    ) -> tuple[Call, RawReply]:
        """Try until there is a reply, or an error that neither a retry nor a dropped setting can mend."""
        tries = 0

        def counted() -> tuple[Call, RawReply]:
            nonlocal tries
            tries += 1
            return attempt()

        while True:
            longest = min(self.settings.max_retry_seconds, self._budget.seconds_left)
            tries = 0
            try:
                return call_with_retries(counted, self.settings.max_attempts, longest, self._sleep)
            except (PGKDError, CancelledError):
                raise
            except Exception as error:
                is_untried = tries < self.settings.max_attempts and is_worth_another_try(error)
                if is_untried and longest < self.settings.max_retry_seconds:
                    raise BudgetExceededError(
                        f"budget.max_minutes leaves no time to try again after {type(error).__name__}"
                    ) from error
                kind = classify(error)
                if kind is Kind.REJECTED and adapt(error):
                    continue
                if kind not in SURVIVABLE and self._stops_at_failure:
                    self.stop()  # at once: another thread may be about to send
                raise unavailable(error, f"teacher {self.chat.model_id}") from error

    def _sleep(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _try(self, key: str, call: Call, ask: Callable[[], AIMessage], text_of: Callable[[AIMessage], str]) -> RawReply:
        """One try, under budget and pace; on disk before it is sent, and again when it has ended.

        Where the call may have been billed and no usage is known, it counts with the most that it could take.
        """
        most = self._most(call)
        with self._budget.reserved(self.chat.model_id, most) as settle:
            try:
                self._wait_for_turn(call, most)
            except BaseException:
                settle(None)
                raise
            row = self._log.begin(key, call, most)
            started = time.perf_counter()
            failure: Exception | None = None
            try:
                answer = ask()
                reply = RawReply(
                    well_formed(text_of(answer)),
                    finish_reason(answer),
                    token_usage(answer),
                    time.perf_counter() - started,
                )
                charged = most if reply.usage == TokenUsage() else reply.usage
            except Exception as error:
                failure = error
                charged = most if may_be_billed(error) else TokenUsage()
                reply = RawReply("", "content_filter", TokenUsage(), time.perf_counter() - started)
            settle(charged)
            if failure is not None and classify(failure) is not Kind.REFUSED:
                text = str(unavailable(failure, f"teacher {self.chat.model_id}"))
                self._log.end(row, classify(failure).name, charged, error=text)
                raise failure
            self._log.end(row, ANSWERED, charged, reply)
        return reply

    def _wait_for_turn(self, call: Call, most: TokenUsage) -> None:
        """
        Raises:
            BudgetExceededError: Its turn comes after the time is over.
            CancelledError: `stop` was called.
        """
        tokens = estimate_tokens(_sent(call)) + most.output_tokens
        if not self._pace.wait(tokens, self._budget.seconds_left):
            raise BudgetExceededError(
                "budget.max_minutes ends before the next request's turn, under teacher.requests_per_minute and "
                "teacher.tokens_per_minute"
            )
        if self._stopped.is_set():
            raise CancelledError

    def _most(self, call: Call) -> TokenUsage:
        """Upper bounds for a call: a token is a byte at least. Where replies have no limit, tokens have no cap."""
        return TokenUsage(most_tokens(_sent(call)) + OVERHEAD_TOKENS, longest_reply(self.chat.model) or 0)


def _sent(call: Call) -> str:
    """All that is sent, as one text."""
    return json.dumps([call.messages, call.settings], ensure_ascii=False)
