"""`Batcher`: texts of requests that come at the same time go through the classifier together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pgkd_agent.student.classifier import Prediction

Classify = Callable[[Sequence[str]], list[Prediction]]


class OverloadedError(Exception):
    """More texts are waiting than are allowed to."""


class ClassifierError(Exception):
    """It failed on these texts."""


class StoppedError(Exception):
    """The batcher ended before it came to these texts."""


@dataclass(frozen=True, slots=True)
class _Job:
    texts: Sequence[str]
    done: asyncio.Future[list[Prediction]]


class Batcher:
    """One call of the classifier at a time; whatever waits when it ends is the next one.

    So nothing waits for company: a lone request is answered at once, and under load batches grow by themselves.

    Args:
        max_batch: Texts of a call; the first request of a call goes whole. 1 leaves each request alone.
        max_waiting: Texts.
        on_batch: Told the number of texts before each call.
    """

    def __init__(
        self, classify: Classify, max_batch: int, max_waiting: int, on_batch: Callable[[int], None] = lambda texts: None
    ) -> None:
        self._classify = classify
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._held: _Job | None = None
        self._is_stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classify")
        self._worker: asyncio.Task[None] | None = None
        self.waiting = 0
        """Texts that are in no call yet."""

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the call that is under way, whose requests are answered; those that wait get `StoppedError`."""
        self._is_stopping = True
        self._jobs.put_nowait(None)  # wakes a worker that waits
        if self._worker:
            await self._worker
        waiting = [self._held]
        while not self._jobs.empty():
            waiting.append(self._jobs.get_nowait())
        for job in filter(None, waiting):
            if not job.done.done():
                job.done.set_exception(StoppedError())
        self._thread.shutdown()

    @property
    def is_alive(self) -> bool:
        return self._worker is not None and not self._worker.done()

    async def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """
        Raises:
            OverloadedError: Try again later.
            ClassifierError: Of whatever the classifier raises.
            StoppedError: It has ended.
        """
        if not texts:
            return []
        if self._is_stopping:
            raise StoppedError
        if self.waiting and self.waiting + len(texts) > self._max_waiting:
            raise OverloadedError
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self.waiting += len(texts)
        self._jobs.put_nowait(job)
        return await job.done

    async def _work(self) -> None:
        while not self._is_stopping:
            jobs = await self._next()
            self.waiting -= sum(len(job.texts) for job in jobs)
            if wanted := [job for job in jobs if not job.done.done()]:  # of the others the client has gone
                await self._answer(wanted)

    async def _next(self) -> list[_Job]:
        first = self._held or await self._jobs.get()
        self._held = None
        if first is None:
            return []
        jobs, texts = [first], len(first.texts)
        while not self._jobs.empty() and (job := self._jobs.get_nowait()) is not None:
            if texts + len(job.texts) > self._max_batch:
                self._held = job
                break
            jobs.append(job)
            texts += len(job.texts)
        return jobs

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        """Where a call fails its requests are tried one by one, so that one of them cannot spoil the others."""
        texts = [text for job in jobs for text in job.texts]
        self._on_batch(len(texts))
        try:
            predictions = await asyncio.get_running_loop().run_in_executor(self._thread, self._classify, texts)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a library's panic too: the worker has to live
            if len(jobs) > 1:
                for job in jobs:
                    await self._answer([job])
            elif not jobs[0].done.done():
                failure = ClassifierError(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                jobs[0].done.set_exception(failure)
            return
        for job in jobs:
            found, predictions = predictions[: len(job.texts)], predictions[len(job.texts) :]
            if not job.done.done():
                job.done.set_result(found)
