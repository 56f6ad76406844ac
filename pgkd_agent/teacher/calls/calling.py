"""`Caller`: what was answered before comes from the log, all else is sent, under budget, pace and retries.

What counts against the caps is what the log says, failed calls included: so a resumed run goes on with the same
account.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextvars import Context
from dataclasses import replace

from langchain_core.messages import AIMessage, HumanMessage
from langsmith import tracing_context

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import BudgetExceededError, PGKDError, TeacherUnavailableError
from pgkd_agent.seeding import derive_seed
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, RawReply
from pgkd_agent.teacher.calls.deadline import within
from pgkd_agent.teacher.calls.failures import (
    SURVIVABLE,
    Kind,
    classify,
    is_timeout,
    may_be_billed,
    redacted,
    retry_after,
    unavailable,
)
from pgkd_agent.teacher.calls.pacing import Pace
from pgkd_agent.teacher.calls.question import CHECK, Question, Settings
from pgkd_agent.teacher.calls.replies import Replies
from pgkd_agent.teacher.calls.retrying import MAX_ATTEMPTS, call_with_retries, is_worth_another_try
from pgkd_agent.teacher.prompting.tokens import estimate_tokens, most_tokens
from pgkd_agent.teacher.providers.dialect import (
    alternatives,
    emptiness,
    finish_reason,
    longest_reply,
    reply_text,
    says_no_logprobs,
    token_usage,
)
from pgkd_agent.teacher.providers.factory import with_short_replies
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher
from pgkd_agent.text import well_formed
from pgkd_agent.types import TokenUsage

OVERHEAD_TOKENS = 512
"""What chat templates and providers' own instructions may add to a prompt."""
CHECK_REPLY_TOKENS = 256
"""For one word, and what a model may think before it."""
LONGEST_RETRYING = 900.0
"""Seconds since its first try after which a call that failed is not tried again."""


class Caller:
    """Calls one model; may be shared by threads.

    Args:
        settings: Pace, and what its callers read of them.
        seed: Of the run.
        stops_at_failure: Whether nothing more is sent after a call that failed for good, as is right for a job; what
            serves others goes on.
    Raises:
        ConfigError: A cap of the budget cannot be kept with this teacher.
    """

    def __init__(
        self,
        chat: ChatTeacher,
        settings: TeacherSettings,
        seed: int,
        replies: Replies,
        budget: Budget,
        stops_at_failure: bool = True,
    ) -> None:
        self.chat = chat
        self.settings = settings
        self._seed = seed
        self._replies = replies
        self._budget = budget
        self._stops_at_failure = stops_at_failure
        self._stopped = threading.Event()
        self._pace = Pace(settings.requests_per_minute, sleep=self._stopped.wait)
        retries = getattr(chat.model, "max_retries", 0)  # None leaves their number to the client
        budget.check(chat.model_id, longest_reply(chat.model) is not None, retries != 0)

    def with_model(self, chat: ChatTeacher) -> Caller:
        """The same way to another model: log, budget and pace are shared."""
        other = copy.copy(self)
        other.chat = chat
        return other

    def stop(self) -> None:
        """Send nothing from now on, where one request failed for good and others are waiting."""
        self._stopped.set()

    def check(self) -> None:
        """Find out whether the teacher answers: without a call where that is possible, else with one of a few tokens.

        Raises:
            TeacherUnavailableError: It cannot be reached, or refuses.
        """
        try:
            if self.chat.check_free and within(FREE_CHECK_SECONDS, self.chat.check_free) is not False:
                return
        except PGKDError:
            raise
        except Exception as error:
            raise self._unavailable(error) from error
        short = self.with_model(with_short_replies(self.chat, CHECK_REPLY_TOKENS))
        short.call(Question(CHECK, [HumanMessage("Answer with the word ok.")]))

    def call(self, question: Question) -> RawReply:
        """Ask, unless the reply is in the log or in the cache; it is in the log before it is returned.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherContextError: The prompt is longer than the model takes.
            BudgetExceededError: The call could exceed a cap of the run.
        """
        wanted, server = self._wanted(question), self.chat.server
        meant = question.call(self.chat.model_id, wanted)  # keys are of this: what is dropped on the way changes none
        if known := self._replies.find(meant, server):
            return known
        if shared := self._replies.find_shared(meant, server):
            return self._found(self._replies.key(meant, server), meant, shared)
        sent, reply = self._persist(self._replies.key(meant, server), question, wanted)
        self._replies.share(meant, server, sent, reply)
        return reply

    def require_room(self, question: Question) -> None:
        """Of a run that has not begun: for this question, after the check.

        Raises:
            BudgetExceededError: The caps leave none.
        """
        call = question.call(self.chat.model_id, self._wanted(question))
        self._budget.require_room(self.chat.model_id, self._most(call), calls=1 if self.chat.check_free else 2)

    def _wanted(self, question: Question) -> Settings:
        where = question.call_id
        seed = derive_seed(self._seed, where.kd_step, f"request/{where.request_index}/{where.attempt}")
        return self.chat.dialect.wanted(
            self.chat.model, seed, question.answer_schema, question.same_beginning, question.logprobs
        )

    def _found(self, key: str, meant: Call, shared: RawReply) -> RawReply:
        """A reply that another run paid for: free, or with the same account as if it had been sent now."""
        log = self._replies.log
        if not self._budget.cache_counts:
            free = replace(shared, usage=TokenUsage())
            log.add(key, meant, free)
            return free
        most = self._most(meant)
        with self._budget.reserved(self.chat.model_id, most) as settle:
            row = log.begin(key, meant, most)
            shared = replace(shared, usage=_known(shared.usage, meant, shared.text, most))
            settle(shared.usage)
            log.end(row, ANSWERED, shared.usage, shared)
        return shared

    def _persist(self, key: str, question: Question, wanted: Settings) -> tuple[Call, RawReply]:
        """Try until there is a reply, or an error that neither a retry nor a dropped setting can mend."""
        dialect = self.chat.dialect
        settings, tries = wanted, 0

        def attempt() -> tuple[Call, RawReply]:
            nonlocal settings, tries
            tries += 1
            settings = dialect.allowed(wanted)
            call = question.call(self.chat.model_id, settings)
            return call, self._try(key, call, question, settings)

        while True:
            longest = min(LONGEST_RETRYING, self._budget.seconds_left)
            tries = 0
            try:
                return call_with_retries(attempt, longest, self._sleep, self._may_pass)
            except (PGKDError, CancelledError):
                raise
            except Exception as error:
                kind = classify(error)
                is_untried = tries < MAX_ATTEMPTS and self._may_pass(error)
                is_late = kind is Kind.PASSING and self._budget.seconds_left <= (retry_after(error) or 0)
                if is_late or (is_untried and longest < LONGEST_RETRYING):
                    raise BudgetExceededError(
                        f"budget.max_minutes leaves no time to try again after {type(error).__name__}"
                    ) from error
                if (kind is Kind.REJECTED or says_no_logprobs(error)) and dialect.drop(error, settings):
                    continue
                if kind not in SURVIVABLE and self._stops_at_failure:
                    self.stop()  # at once: another thread may be about to send
                raise self._unavailable(error) from error

    def _may_pass(self, error: BaseException) -> bool:
        return is_worth_another_try(error) and not (self.chat.is_embedded and is_timeout(error))

    def _unavailable(self, error: BaseException) -> TeacherUnavailableError:
        return unavailable(error, self.chat.model_id, self.chat.server)

    def _sleep(self, seconds: float) -> None:
        self._stopped.wait(seconds)

    def _try(self, key: str, call: Call, question: Question, settings: Settings) -> RawReply:
        """One try, under budget and pace; on disk before it is sent, and again when it has ended.

        A call that failed and may have been billed counts with the most that it could take; one that was answered
        without usage, with an estimate.
        """
        most, log = self._most(call), self._replies.log
        with self._budget.reserved(self.chat.model_id, most) as settle:
            try:
                self._wait_for_turn()
            except BaseException:
                settle(None)
                raise
            row = log.begin(key, call, most)
            started = time.perf_counter()
            failure: Exception | None = None
            try:
                model = self.chat.dialect.bind(self.chat.model, settings)
                most_seconds = min(self.settings.timeout, self._budget.seconds_left)
                if self.chat.is_embedded:  # it computes until its client hangs up
                    model = model.bind(timeout=most_seconds)
                answer = within(most_seconds, lambda: _unseen(lambda: question.send(model, settings)))
                seconds, text = time.perf_counter() - started, well_formed(question.text_of(answer))
                charged = _known(token_usage(answer), call, reply_text(answer), most)
                others = alternatives(answer) if question.logprobs else ()
                reply = RawReply(text, finish_reason(answer), charged, seconds, emptiness(answer), others)
            except Exception as error:
                failure = error
                charged = most if may_be_billed(error) else TokenUsage()
                reply = _reply_of(error, charged, time.perf_counter() - started)
            settle(charged)
            if failure is not None and classify(failure) not in (Kind.REFUSED, Kind.EMPTY):
                log.end(row, classify(failure).name, charged, error=str(self._unavailable(failure)))
                raise failure
            log.end(row, ANSWERED, charged, reply)
        return reply

    def _wait_for_turn(self) -> None:
        """
        Raises:
            BudgetExceededError: Its turn comes after the time is over.
            CancelledError: `stop` was called.
        """
        if not self._pace.wait(self._budget.seconds_left):
            raise BudgetExceededError(
                "budget.max_minutes ends before the next request's turn, under teacher.requests_per_minute"
            )
        if self._stopped.is_set():
            raise CancelledError

    def _most(self, call: Call) -> TokenUsage:
        """Upper bounds for a call: a token is a byte at least. Where replies have no limit, tokens have no cap."""
        return TokenUsage(most_tokens(_sent(call)) + OVERHEAD_TOKENS, longest_reply(self.chat.model) or 0)


def _known(reported: TokenUsage, call: Call, text: str, most: TokenUsage) -> TokenUsage:
    """What a call took; estimated where its provider does not say so, in full where there is nothing to go by."""
    if reported.input_tokens and (reported.output_tokens or not text):
        return reported
    tokens_in = reported.input_tokens or estimate_tokens(_sent(call))
    tokens_out = reported.output_tokens or estimate_tokens(text) or most.output_tokens
    return TokenUsage(tokens_in, tokens_out, 1)


def _reply_of(error: Exception, charged: TokenUsage, seconds: float) -> RawReply:
    """The reply that an error stands for: a filter that stood in for the model, or an answer without a message."""
    if classify(error) is not Kind.EMPTY:
        return RawReply("", "content_filter", TokenUsage(), seconds)
    note = f"{type(error).__name__}: {redacted((str(error).splitlines() or [''])[0])[:200]}"
    return RawReply("", "", replace(charged, estimated_calls=1), seconds, note)


def _sent(call: Call) -> str:
    """All that is sent, as one text."""
    return json.dumps([call.messages, call.settings], ensure_ascii=False)


def _unseen(send: Callable[[], AIMessage]) -> AIMessage:
    """Out of sight of LangChain's callbacks and tracing: they see the gated model, and would count its call twice."""

    def untraced() -> AIMessage:
        with tracing_context(enabled=False):
            return send()

    return Context().run(untraced)
