"""`SentJobs`: the life of a batch job between the log and the provider, over kills, failures and hours of waiting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from pgkd_agent.errors import BudgetExceededError, ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.calls.failures import may_be_billed, retry_after, status_of
from pgkd_agent.teacher.calls.job_log import Job, JobLog
from pgkd_agent.teacher.calls.retrying import LONGEST_RETRYING, call_with_retries, is_worth_another_try
from pgkd_agent.teacher.providers.batch import BatchJobs, Progress, Result
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.teacher.calls.calling import Caller

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT, GROWTH = 2.0, 120.0, 1.5
"""Seconds between two looks at a job, and how they grow."""
LONGEST_SILENCE = 3600.0
"""Seconds without an answer about a job, after which it is left to the next start."""
_NO_SUCH_CALL = (404, 405, 501)


class SentJobs:
    """Jobs of one model.

    Args:
        caller: Whose budget, brake and observer hold.
        provider: Its jobs.
        log: Where they are written down.
    """

    def __init__(self, caller: Caller, provider: BatchJobs, log: JobLog) -> None:
        self._caller = caller
        self._spec = caller.chat.model_id
        self._provider = provider
        self._log = log

    def send(self, job: Job, requests: Mapping[str, Any]) -> Job:
        """Send a job that is in the log, and note down its id before anything else.

        Where it is not known whether an earlier try reached the provider, it is looked for before another one.

        Args:
            requests: Bodies by id.
        Raises:
            ConfigError: The server has no batch jobs.
            TeacherUnavailableError: The provider failed for good.
        """
        is_new, may_be_there = True, False

        def send() -> str:
            nonlocal is_new, may_be_there
            found = None if is_new else self._provider.find(job.name, job.made, len(requests))
            is_new = False
            try:
                return found or self._provider.create(job.name, requests)
            except Exception as error:
                may_be_there = may_be_there or may_be_billed(error)
                raise

        try:
            provider_id = call_with_retries(send, LONGEST_RETRYING, self._caller.sleep)
        except Exception as error:
            if not may_be_there:  # else the next start looks for it
                self.forget(job)
            if status_of(error) in _NO_SUCH_CALL:
                raise ConfigError(
                    f"teacher {self._spec}: its server {self._caller.chat.server} takes no batch jobs "
                    f"(HTTP {status_of(error)}); leave out `teacher.batch`"
                ) from error
            raise self._caller.unavailable(error) from error
        self._log.note(job, provider_id)
        logger.info("batch job %s with %s is sent", provider_id, counted(len(requests), "request"))
        return replace(job, provider_id=provider_id)

    def found(self, job: Job) -> Job | None:
        """A job of an earlier start, with its id; None where the provider never had it, and then it is forgotten."""
        if not job.provider_id:
            find = self._provider.find
            found = self._insisting(job, lambda: find(job.name, job.made, len(job.rows)))
            if found is None:
                self.forget(job)
                return None
            self._log.note(job, found)
            job = replace(job, provider_id=found)
        logger.info("batch job %s was sent before: taking it up", job.provider_id)
        return job

    def own(self, job: Job, brought: Collection[str]) -> Job | None:
        """The job itself, or the right one where its results are those of a stranger that was like it; see `found`."""
        if not brought or any(number.startswith(job.name) for number in brought):
            return job
        return self.found(replace(job, provider_id=""))

    def forget(self, job: Job) -> None:
        """Of a job that was never worked on: its calls were not made."""
        self._log.forget(job)
        for row in job.rows.values():
            self._caller.budget.adjust(self._spec, row.charged, None)

    def awaited(self, job: Job) -> Progress:
        """Look, less and less often, until the job is over.

        Raises:
            BudgetExceededError: `budget.max_minutes` ends before it; the job goes on.
            TeacherUnavailableError: Its provider says nothing of it any more.
        """
        wait, heard, said = FIRST_WAIT, time.monotonic(), ""
        with _going_on(job):
            while True:
                asked_to_wait = 0.0
                try:
                    progress = self._provider.look(job.provider_id)
                except Exception as error:
                    if not is_worth_another_try(error) or time.monotonic() - heard > LONGEST_SILENCE:
                        raise self._lost(job, error) from error
                    logger.info("batch job %s: %s; looking again later", job.provider_id, type(error).__name__)
                    asked_to_wait = retry_after(error) or 0.0
                else:
                    heard = time.monotonic()
                    if progress.is_over:
                        return progress
                    state = f"{progress.done} of {progress.total or len(job.rows)} done"
                    if state != said:
                        self._caller.on_wait(f"waiting for batch job {job.provider_id} ({state})")
                    said = state
                self._pause(job, max(wait, asked_to_wait))
                wait = min(wait * GROWTH, LONGEST_WAIT)

    def results(self, job: Job) -> list[Result]:
        """Of a job that is over.

        Raises:
            TeacherUnavailableError: They cannot be had now.
        """
        with _going_on(job):
            return self._insisting(job, lambda: list(self._provider.results(job.provider_id)))

    def _pause(self, job: Job, seconds: float) -> None:
        left = self._caller.budget.seconds_left
        if left <= 0:
            raise BudgetExceededError(f"budget.max_minutes leaves no time to wait: {_goes_on(job)}")
        self._caller.sleep(min(seconds, left))
        if self._caller.is_stopped:
            raise CancelledError

    def _insisting(self, job: Job, ask: Callable[[], T]) -> T:
        """What the provider says of a job, after passing failures too."""
        try:
            return call_with_retries(ask, LONGEST_RETRYING, self._caller.sleep)
        except Exception as error:
            raise self._lost(job, error) from error

    def _lost(self, job: Job, error: Exception) -> TeacherUnavailableError:
        name = job.provider_id or job.name
        if status_of(error) == 404:
            return TeacherUnavailableError(
                f"teacher {self._spec}: batch job {name}, sent at {job.made:%Y-%m-%d %H:%M} UTC, is not there any "
                "more; take the server, and the key of the account and project, that it was sent with, or start anew "
                "without this log of calls"
            )
        return TeacherUnavailableError(
            f"{self._caller.unavailable(error)} (batch job {name}, which is not lost by that)"
        )


def _goes_on(job: Job) -> str:
    return f"batch job {job.provider_id} goes on at the provider; the next start takes its results from there"


@contextmanager
def _going_on(job: Job) -> Iterator[None]:
    """Have a person who ends the wait told what becomes of the job."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        stop.add_note(_goes_on(job))
        raise
