"""`Batcher`: texts of requests that come at the same time go through the classifier together."""

from __future__ import annotations

import asyncio
from collections import deque
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

    @property
    def is_wanted(self) -> bool:
        """Not where its client has gone."""
        return not self.done.done()


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
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._is_stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="classify")
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End after the call that is under way, whose requests are answered; those that wait get `StoppedError`."""
        self._is_stopping = True
        self._arrived.set()
        if self._worker:
            await self._worker
        self._thread.shutdown()

    @property
    def is_alive(self) -> bool:
        return self._worker is not None and not self._worker.done() and not self._is_stopping

    @property
    def waiting(self) -> int:
        """Texts that are in no call yet, and somebody waits for."""
        return sum(len(job.texts) for job in self._jobs if job.is_wanted)

    async def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """
        Raises:
            OverloadedError: Try again later.
            ClassifierError: Of whatever the classifier raises.
            StoppedError: It has ended.
        """
        if not texts:
            return []
        if not self.is_alive:
            raise StoppedError
        if (waiting := self.waiting) and waiting + len(texts) > self._max_waiting:
            raise OverloadedError
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.done

    async def _work(self) -> None:
        try:
            while not self._is_stopping:
                await self._arrived.wait()
                self._arrived.clear()
                while not self._is_stopping and (jobs := self._take()):
                    await self._answer(jobs)
        finally:
            for job in self._jobs:
                if job.is_wanted:
                    job.done.set_exception(StoppedError())

    def _take(self) -> list[_Job]:
        """The jobs of the next call, off the queue."""
        taken: list[_Job] = []
        texts = 0
        while self._jobs:
            job = self._jobs[0]
            if job.is_wanted:
                if taken and texts + len(job.texts) > self._max_batch:
                    break
                taken.append(job)
                texts += len(job.texts)
            self._jobs.popleft()
        return taken

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        """Where a call fails its requests are tried one by one, so that one of them cannot spoil the others."""
        texts = [text for job in jobs for text in job.texts]
        try:
            self._on_batch(len(texts))
            predictions = await asyncio.get_running_loop().run_in_executor(self._thread, self._classify, texts)
        except BaseException as error:  # a library's panic too: the worker has to live
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise
            if len(jobs) > 1:
                for job in filter(lambda job: job.is_wanted, jobs):
                    await self._answer([job])
            elif jobs[0].is_wanted:
                failure = ClassifierError(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                jobs[0].done.set_exception(failure)
            return
        for job in jobs:
            found, predictions = predictions[: len(job.texts)], predictions[len(job.texts) :]
            if job.is_wanted:
                job.done.set_result(found)
