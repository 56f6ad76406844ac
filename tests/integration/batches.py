"""Batch jobs of a loopback server, and what goes wrong with them; the servers put them into their protocols."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.loopback import Answer


@dataclass
class FakeJob:
    """
    Attributes:
        lines: Bodies by id, in the order in which they came.
        looks: Times that it will be found at work.
        status: `in_progress` until it is over.
    """

    id: str
    name: str
    lines: dict[str, Any]
    looks: int
    status: str = "in_progress"
    answers: dict[str, Answer] = field(default_factory=dict)
    made: float = field(default_factory=time.time)


@dataclass
class Batches:
    """Of a server.

    Attributes:
        looks: Times that a job is found at work before it is over.
        ends: How jobs end, in turn; the last one goes on.
        left_out: Numbers of the lines that a job, by its number from 0, does not work on.
        failures: What is answered to looks at jobs first.
        creates: What is answered to attempts to make jobs first; `made` ones are made all the same.
        stranger: Whether results hold a line that nobody asked for.
    """

    answer: Callable[[Any], Answer]
    looks: int = 1
    ends: tuple[str, ...] = ("completed",)
    left_out: Mapping[int, Collection[int]] = field(default_factory=dict)
    failures: list[Answer] = field(default_factory=list)
    creates: list[Answer] = field(default_factory=list)
    stranger: bool = False
    jobs: list[FakeJob] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, name: str, lines: dict[str, Any]) -> FakeJob:
        job = FakeJob(f"batch_{len(self.jobs)}", name, lines, self.looks)
        self.jobs.append(job)
        return job

    def named(self, id: str) -> FakeJob | None:
        return next((job for job in self.jobs if job.id == id), None)

    def look(self, job: FakeJob) -> FakeJob:
        """Found at work once more, or over."""
        with self.lock:
            if job.status == "in_progress" and job.looks <= 0:
                number = self.jobs.index(job)
                job.status = self.ends[min(number, len(self.ends) - 1)]
                left = self.left_out.get(number, ()) if job.status != "failed" else range(len(job.lines))
                for place, (line, body) in enumerate(job.lines.items()):
                    if place not in left:
                        job.answers[line] = self.answer(body)
            job.looks -= 1
        return job

    def results(self, job: FakeJob) -> Iterator[tuple[str, Answer | None]]:
        """Last line first; None for those that were not worked on."""
        if self.stranger:
            yield "somebody-elses-7", next(iter(job.answers.values()))
        for line in reversed(job.lines):
            yield line, job.answers.get(line)


def jsonl(lines: list[dict[str, Any]]) -> Answer:
    content = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    return Answer(200, content.encode(), {"Content-Type": "application/jsonl"})
