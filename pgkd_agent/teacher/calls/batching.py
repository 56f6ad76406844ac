"""`Batch`: ask many questions by batch jobs of the provider, so that who asks them finds the answers in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pgkd_agent.errors import BudgetExceededError, PGKDError, TeacherContextError, TeacherUnavailableError
from pgkd_agent.teacher.calls.call_log import Call
from pgkd_agent.teacher.calls.failures import SURVIVABLE, Kind, classify, redacted
from pgkd_agent.teacher.calls.job_log import Ended, Job, JobLog
from pgkd_agent.teacher.calls.jobs import SentJobs
from pgkd_agent.teacher.calls.question import Question, Settings
from pgkd_agent.teacher.calls.retrying import MAX_ATTEMPTS
from pgkd_agent.teacher.calls.settling import Outcome, most_of, outcome_of, unseen
from pgkd_agent.teacher.providers.batch import BatchJobs, Exchange, Progress, Result, Unsent
from pgkd_agent.teacher.providers.dialect import says_no_logprobs
from pgkd_agent.text import counted
from pgkd_agent.types import TokenUsage

if TYPE_CHECKING:
    from pgkd_agent.teacher.calls.calling import Caller

logger = logging.getLogger(__name__)

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")

BATCH: ContextVar[Batch[Any, Any] | None] = ContextVar("batch", default=None)
"""Under which a question is asked; None asks directly."""


class WaitsForJob(Exception):
    """A question cannot be answered before a job is over."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What a job is to bring the reply of.

    Attributes:
        origin: What was asked, of which it is the first call.
        tries: Jobs that it was in before.
    """

    origin: Any
    key: str
    question: Question
    wanted: Settings
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Sent:
    """A call as it is sent: without what the model rejected before; `most` is what it may take."""

    call: _Call
    settings: Settings
    sent: Call
    most: TokenUsage


_Calls = dict[str, _Call]
"""By key."""


class Batch(Generic[QuestionT, AnswerT]):
    """The questions of one pass. What each asks first goes into a job; what follows from a reply, as a question for
    missing samples, is asked directly, since it would wait for a job of its own.

    All calls of a job are in the log before it is sent, and its id before anything else: a run that was killed finds
    them there, and takes up that job instead of sending another.
    """

    def __init__(self, caller: Caller, jobs: BatchJobs, ask: Callable[[QuestionT], AnswerT]) -> None:
        self._caller = caller
        self._spec = caller.chat.model_id
        self._ask = ask
        self._provider = jobs
        self._log = JobLog(caller.replies.log)
        self._jobs = SentJobs(caller, jobs, self._log)
        self._exchange = Exchange()
        self._model = jobs.detached(caller.chat.model, self._exchange)
        self._most_requests = jobs.most_requests
        self._origin: QuestionT | None = None
        self._found: _Call | None = None
        self._failures: dict[str, TeacherUnavailableError] = {}
        self._over: BudgetExceededError | None = None

    def answer(self, questions: Sequence[QuestionT]) -> None:
        """Have what the questions ask first answered, as far as the caps allow.

        Raises:
            TeacherUnavailableError: The provider failed for good, or a job was cancelled there.
        """
        calls = self._collected(questions)
        try:
            for job in self._log.under_way(self._spec) if calls else ():
                mine = [calls.pop(key) for key in job.rows if key in calls]
                if mine:
                    sent = self._jobs.found(job)
                    calls |= self._finished(sent, [self._as_sent(call) for call in mine]) if sent else _by_key(mine)
            if len(calls) > 1 and not self._caller.is_tried:  # what the model rejects is known before many wait for it
                first = calls.pop(next(iter(calls)))
                unseen(partial(self._ask, first.origin))
            self._caller.is_tried = True
            while calls:
                calls = self._next(calls)
        except BudgetExceededError as error:
            self._over = error

    def ask(self, question: QuestionT) -> AnswerT:
        """Ask, in any thread; the first call is found in the log."""
        token = BATCH.set(self)
        try:
            return self._ask(question)
        finally:
            BATCH.reset(token)

    def take(self, key: str, question: Question, wanted: Settings) -> None:
        """Told a call that is about to be sent; where it returns, the call is sent directly.

        Raises:
            WaitsForJob: It is noted down for a job, or it follows one that is.
            TeacherUnavailableError: It failed for good.
            BudgetExceededError: A cap left no room for it.
        """
        if failure := self._failures.get(key):
            raise failure
        kind, said = self._caller.replies.log.find_failure(key) or ("", "")
        if kind == Kind.CONTEXT.name:
            raise TeacherContextError(said)
        if self._origin is not None:
            if question.call_id.attempt == 0:
                self._found = _Call(self._origin, key, question, wanted)
            raise WaitsForJob
        if self._over and question.call_id.attempt == 0:
            raise BudgetExceededError(str(self._over))

    def _collected(self, questions: Iterable[QuestionT]) -> _Calls:
        """Of each question the first call that has no reply yet."""
        calls: _Calls = {}
        for question in questions:
            self._origin, self._found = question, None
            with suppress(WaitsForJob, PGKDError):  # an error comes again when the question is asked in earnest
                unseen(partial(self.ask, question))
            if self._found:
                calls[self._found.key] = self._found
        self._origin = None
        return calls

    def _as_sent(self, call: _Call) -> _Sent:
        chat = self._caller.chat
        settings = chat.dialect.allowed(call.wanted)
        sent = call.question.call(self._spec, settings)
        return _Sent(call, settings, sent, most_of(sent, chat.model).in_batch())

    def _exchanged(self, one: _Sent, result: Result | None) -> Any:
        """What LangChain's model makes of a call and its result."""
        self._exchange.result = result
        model = self._caller.chat.dialect.bind(self._model, one.settings)
        return unseen(lambda: one.call.question.send(model, one.settings))

    def _body(self, one: _Sent) -> Any:
        try:
            self._exchanged(one, None)
        except Unsent as kept:
            return kept.body
        except Exception as error:
            raise self._caller.unavailable(error) from error
        raise AssertionError("a model that answers without its provider")

    def _next(self, calls: Mapping[str, _Call]) -> _Calls:
        """Send a job, and wait for it; returns what is left to be asked.

        Raises:
            BudgetExceededError: There is no room for a single call.
        """
        chosen = self._chosen(calls.values())
        left = {key: call for key, call in calls.items() if key not in {one.call.key for one, _ in chosen}}
        job = self._log.begin(self._spec, [(one.call.key, one.sent, one.most) for one, _ in chosen])
        job = self._jobs.send(job, {job.request_id(one.call.key): body for one, body in chosen})
        return left | self._finished(job, [one for one, _ in chosen])

    def _chosen(self, calls: Iterable[_Call]) -> list[tuple[_Sent, Any]]:
        """As many as one job takes and the caps have room for, which is held back; each with its request."""
        chosen: list[tuple[_Sent, Any]] = []
        size = 0
        for one in map(self._as_sent, calls):
            body = self._body(one)
            size += len(json.dumps(body)) + 200  # at most, for what is around it
            if chosen and (len(chosen) == self._most_requests or size > self._provider.most_bytes):
                break
            try:
                self._caller.budget.hold(self._spec, one.most)
            except BudgetExceededError:
                if chosen:  # when these have ended, and took less than they could, there may be room
                    break
                raise
            chosen.append((one, body))
        return chosen

    def _finished(self, job: Job, calls: Sequence[_Sent]) -> _Calls:
        """Wait for a job, and write down what it brought; returns what has to be asked again."""
        progress = self._jobs.awaited(job)
        if progress.is_refused:
            return self._refused(job, calls, progress)
        waiting = {job.request_id(one.call.key): one for one in calls}
        brought = {result.request_id: result for result in reversed(self._jobs.results(job))}  # the first of an id
        own = self._jobs.own(job, brought)
        if own is None or own.provider_id != job.provider_id:
            return self._finished(own, calls) if own else _by_key(one.call for one in calls)
        if others := brought.keys() - {job.request_id(key) for key in job.rows}:
            many = counted(len(others), "result")
            logger.warning("batch job %s: left out %s of requests that it was not sent", job.provider_id, many)
        done = {number for number, result in brought.items() if result.status} & waiting.keys()
        outcomes = [(one, self._read(one, brought[number])) for number, one in waiting.items() if number in done]
        missing = [one for number, one in waiting.items() if number not in done]
        self._write(job, outcomes, missing, progress.ended or "no result")
        again: _Calls = {}
        for one, outcome in outcomes:
            if outcome.failure is not None:
                again |= self._after(one, outcome.failure)
        return again | self._after_none(job, missing, len(calls), progress.ended)

    def _read(self, one: _Sent, result: Result) -> Outcome:
        outcome = outcome_of(one.call.question, one.sent, one.most, lambda: self._exchanged(one, result))
        # how long a call waited in a job says nothing of the model
        return replace(outcome, reply=outcome.reply and replace(outcome.reply, seconds=0.0))

    def _write(self, job: Job, outcomes: Sequence[tuple[_Sent, Outcome]], missing: Sequence[_Sent], why: str) -> None:
        ended: list[Ended] = []
        for one, done in outcomes:
            error = str(self._caller.unavailable(done.failure)) if done.failure else ""
            ended.append((job.rows[one.call.key].row, done.name, done.charged, done.reply, error))
        nothing, said = TokenUsage(), f"batch job {job.provider_id}: {why}"
        ended += [(job.rows[one.call.key].row, Kind.PASSING.name, nothing, None, said) for one in missing]
        self._log.end(job, ended)
        for one, charged in [*((one, done.charged) for one, done in outcomes), *((one, nothing) for one in missing)]:
            self._caller.budget.adjust(self._spec, job.rows[one.call.key].charged, charged)
        for one, done in outcomes:
            if done.reply:
                meant = one.call.question.call(self._spec, one.call.wanted)
                self._caller.replies.share(meant, self._caller.chat.server, one.sent, done.reply)

    def _after(self, one: _Sent, error: Exception) -> _Calls:
        """What is asked in place of a call that failed; what failed for good is raised when it is asked in earnest.

        Raises:
            TeacherUnavailableError: No other call would go better.
        """
        kind, call = classify(error), one.call
        if (kind is Kind.REJECTED or says_no_logprobs(error)) and self._caller.chat.dialect.drop(error, one.settings):
            return {call.key: call}
        if kind is Kind.PASSING and call.tries + 1 < MAX_ATTEMPTS:
            return {call.key: replace(call, tries=call.tries + 1)}
        failure = self._caller.unavailable(error)
        if kind not in SURVIVABLE:
            self._caller.stop()
            raise failure from error
        self._failures[call.key] = failure
        return self._collected([call.origin])  # with a shorter prompt, where there is one

    def _after_none(self, job: Job, missing: Sequence[_Sent], number: int, ended: str) -> _Calls:
        """The same of calls that the job brought nothing of."""
        if not missing:
            return {}
        brought = f"batch job {job.provider_id} brought {number - len(missing)} of {number} answers"
        why = f" ({ended})" if ended else ""
        if ended == "cancelled":
            raise TeacherUnavailableError(f"{brought}: somebody cancelled it; the next start asks for the rest")
        if any(one.call.tries + 1 == MAX_ATTEMPTS for one in missing):
            raise TeacherUnavailableError(
                f"{brought}{why}, as {MAX_ATTEMPTS} jobs in a row did not; go on later, or leave out `teacher.batch`"
            )
        logger.warning("%s%s; the rest is asked for in a next one", brought, why)
        return _by_key(replace(one.call, tries=one.call.tries + 1) for one in missing)

    def _refused(self, job: Job, calls: Sequence[_Sent], progress: Progress) -> _Calls:
        self._jobs.forget(job)
        if not progress.is_too_large or len(calls) == 1:
            self._caller.stop()
            raise TeacherUnavailableError(
                f"teacher {self._spec}: the provider refused batch job {job.provider_id} "
                f"({redacted(progress.ended)}); nothing of it was worked on"
            )
        self._most_requests = len(calls) // 2
        many = counted(self._most_requests, "request")
        logger.warning("batch job %s is refused (%s); sending %s at a time", job.provider_id, progress.ended, many)
        return _by_key(one.call for one in calls)


def _by_key(calls: Iterable[_Call]) -> _Calls:
    return {call.key: call for call in calls}
