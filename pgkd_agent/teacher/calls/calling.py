"""`Caller`: what was answered before comes from the log, all else is sent, under budget, pace and retries.

What counts against the caps is what the log says, failed calls included: so a resumed run goes on with the same
account.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from typing import TypeVar

from langchain_core.messages import AIMessage, HumanMessage

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import BudgetExceededError, PGKDError, TeacherUnavailableError
from pgkd_agent.seeding import derive_seed
from pgkd_agent.teacher.calls.asking import fan_out
from pgkd_agent.teacher.calls.batching import BATCH, Batch
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, RawReply
from pgkd_agent.teacher.calls.deadline import within
from pgkd_agent.teacher.calls.failures import (
    SURVIVABLE,
    Kind,
    classify,
    is_timeout,
    retry_after,
    unavailable,
)
from pgkd_agent.teacher.calls.pacing import Pace
from pgkd_agent.teacher.calls.question import CHECK, Question, Settings
from pgkd_agent.teacher.calls.replies import Replies
from pgkd_agent.teacher.calls.retrying import LONGEST_RETRYING, MAX_ATTEMPTS, call_with_retries, is_worth_another_try
from pgkd_agent.teacher.calls.settling import known, most_of, outcome_of, unseen
from pgkd_agent.teacher.providers.dialect import longest_reply, says_no_logprobs
from pgkd_agent.teacher.providers.factory import with_short_replies
from pgkd_agent.teacher.providers.provider import FREE_CHECK_SECONDS, ChatTeacher
from pgkd_agent.types import TokenUsage

logger = logging.getLogger(__name__)

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")
OnWait = Callable[[str], None]
"""Told, in words, how far a batch job is."""

CHECK_REPLY_TOKENS = 256
"""For one word, and what a model may think before it."""


class Caller:
    """Calls one model; may be shared by threads.

    Args:
        settings: Pace, and what its callers read of them.
        seed: Of the run.
        stops_at_failure: Whether nothing more is sent after a call that failed for good, as is right for a job; what
            serves others goes on.
        on_wait: Told how far a batch job is; None logs it.
    Attributes:
        is_tried: Whether the model is known to take what it is asked with.
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
        on_wait: OnWait | None = None,
    ) -> None:
        self.chat = chat
        self.settings = settings
        self.is_tried = False
        self.on_wait = on_wait or partial(logger.info, "%s")
        self._seed = seed
        self.replies = replies
        self.budget = budget
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

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

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
            raise self.unavailable(error) from error
        short = self.with_model(with_short_replies(self.chat, CHECK_REPLY_TOKENS))
        short.call(Question(CHECK, [HumanMessage("Answer with the word ok.")]))

    def call(self, question: Question) -> RawReply:
        """Ask, unless the reply is in the log or in the cache; it is in the log before it is returned.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherContextError: The prompt is longer than the model takes.
            BudgetExceededError: The call could exceed a cap of the run.
            WaitsForJob: Under a `Batch` alone, which goes on with it.
        """
        wanted, server = self._wanted(question), self.chat.server
        meant = question.call(self.chat.model_id, wanted)  # keys are of this: what is dropped on the way changes none
        if logged := self.replies.find(meant, server):
            return logged
        key = self.replies.key(meant, server)
        if shared := self.replies.find_shared(meant, server):
            return self._found(key, meant, shared)
        if batch := BATCH.get():
            batch.take(key, question, wanted)
        sent, reply = self._persist(key, question, wanted)
        self.replies.share(meant, server, sent, reply)
        return reply

    def ask_all(
        self, ask: Callable[[QuestionT], AnswerT], questions: Iterable[QuestionT]
    ) -> Iterator[tuple[int, AnswerT]]:
        """`fan_out` over questions each of which `ask` puts to this caller; by batch jobs first, where these are set.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            BudgetExceededError: See `fan_out`.
        """
        questions = list(questions)
        if self.chat.jobs:
            batch = Batch(self, self.chat.jobs, ask)
            batch.answer(questions)
            ask = batch.ask
        yield from fan_out(ask, questions, self.settings.concurrency, self.stop)

    def require_room(self, question: Question) -> None:
        """Of a run that has not begun: for this question, after the check.

        Raises:
            BudgetExceededError: The caps leave none.
        """
        most = most_of(question.call(self.chat.model_id, self._wanted(question)), self.chat.model)
        self.budget.require_room(self.chat.model_id, most, calls=1 if self.chat.check_free else 2)

    def _wanted(self, question: Question) -> Settings:
        where = question.call_id
        seed = derive_seed(self._seed, where.kd_step, f"request/{where.request_index}/{where.attempt}")
        return self.chat.dialect.wanted(
            self.chat.model, seed, question.answer_schema, question.same_beginning, question.logprobs
        )

    def _found(self, key: str, meant: Call, shared: RawReply) -> RawReply:
        """A reply that another run paid for: free, or with the same account as if it had been sent now."""
        log = self.replies.log
        if not self.budget.cache_counts:
            free = replace(shared, usage=TokenUsage())
            log.add(key, meant, free)
            return free
        most = most_of(meant, self.chat.model)
        with self.budget.reserved(self.chat.model_id, most) as settle:
            row = log.begin(key, meant, most)
            shared = replace(shared, usage=known(shared.usage, meant, shared.text, most))
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
            longest = min(LONGEST_RETRYING, self.budget.seconds_left)
            tries = 0
            try:
                return call_with_retries(attempt, longest, self.sleep, self._may_pass)
            except (PGKDError, CancelledError):
                raise
            except Exception as error:
                kind = classify(error)
                is_untried = tries < MAX_ATTEMPTS and self._may_pass(error)
                is_late = kind is Kind.PASSING and self.budget.seconds_left <= (retry_after(error) or 0)
                if is_late or (is_untried and longest < LONGEST_RETRYING):
                    raise BudgetExceededError(
                        f"budget.max_minutes leaves no time to try again after {type(error).__name__}"
                    ) from error
                if (kind is Kind.REJECTED or says_no_logprobs(error)) and dialect.drop(error, settings):
                    continue
                if kind not in SURVIVABLE and self._stops_at_failure:
                    self.stop()  # at once: another thread may be about to send
                raise self.unavailable(error) from error

    def _may_pass(self, error: BaseException) -> bool:
        return is_worth_another_try(error) and not (self.chat.is_embedded and is_timeout(error))

    def unavailable(self, error: BaseException) -> TeacherUnavailableError:
        """The error for the user."""
        return unavailable(error, self.chat.model_id, self.chat.server)

    def sleep(self, seconds: float) -> None:
        """Until the time is over, or `stop` is called."""
        self._stopped.wait(seconds)

    def _try(self, key: str, call: Call, question: Question, settings: Settings) -> RawReply:
        """One try, under budget and pace; on disk before it is sent, and again when it has ended."""
        most, log = most_of(call, self.chat.model), self.replies.log
        with self.budget.reserved(self.chat.model_id, most) as settle:
            try:
                self._wait_for_turn()
            except BaseException:
                settle(None)
                raise
            row = log.begin(key, call, most)
            done = outcome_of(question, call, most, lambda: self._send(question, settings))
            settle(done.charged)
            error = str(self.unavailable(done.failure)) if done.failure else ""
            log.end(row, done.name, done.charged, done.reply, error)
        if done.failure is not None:
            raise done.failure
        assert done.reply is not None  # one of the two is there
        return done.reply

    def _send(self, question: Question, settings: Settings) -> AIMessage:
        model = self.chat.dialect.bind(self.chat.model, settings)
        most_seconds = min(self.settings.timeout, self.budget.seconds_left)
        if self.chat.is_embedded:  # it computes until its client hangs up
            model = model.bind(timeout=most_seconds)
        return within(most_seconds, lambda: unseen(lambda: question.send(model, settings)))

    def _wait_for_turn(self) -> None:
        """
        Raises:
            BudgetExceededError: Its turn comes after the time is over.
            CancelledError: `stop` was called.
        """
        if not self._pace.wait(self.budget.seconds_left):
            raise BudgetExceededError(
                "budget.max_minutes ends before the next request's turn, under teacher.requests_per_minute"
            )
        if self._stopped.is_set():
            raise CancelledError
