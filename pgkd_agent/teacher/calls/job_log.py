"""Batch jobs in the call log: which calls wait for which job, so that a run that was killed takes it up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from pgkd_agent.teacher.calls.call_log import SENT, Call, CallLog, RawReply, charge, insert, update
from pgkd_agent.types import TokenUsage

Ended = tuple[int, str, TokenUsage, RawReply | None, str]
"""Row of a call, and how it ended; see `CallLog.end`."""


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """Of a call that waits: its row, and what it is charged with meanwhile."""

    row: int
    charged: TokenUsage


@dataclass(frozen=True, slots=True)
class Job:
    """A batch job of the provider.

    Attributes:
        number: Of its row.
        name: By which the provider is told it, and ids of its requests begin.
        provider_id: Empty where it is not known whether the provider has it.
        rows: By key, of the calls that wait for it.
    """

    number: int
    name: str
    made: datetime
    provider_id: str
    rows: Mapping[str, WaitingRow]

    def request_id(self, key: str) -> str:
        """What the provider calls the request of a call."""
        return f"{self.name}-{self.rows[key].row}"


class JobLog:
    """The jobs of one log; each method is one transaction."""

    def __init__(self, log: CallLog) -> None:
        self._log = log

    def begin(self, model: str, calls: Sequence[tuple[str, Call, TokenUsage]]) -> Job:
        """Write down a job that is about to be sent, and its calls, charged with the most that they may take.

        Args:
            calls: Key, what is sent, most.
        """
        name, made = f"pgkd-{uuid4().hex[:12]}", datetime.now(UTC)
        rows = {}
        with self._log.session() as connection:
            columns = "INSERT INTO jobs (name, at, model) VALUES (?, ?, ?)"
            number = connection.execute(columns, (name, made.isoformat(), model)).lastrowid or 0
            for key, call, most in calls:
                row = insert(connection, key, call, {"outcome": SENT, **charge(most), "job": number})
                rows[key] = WaitingRow(row, most)
        return Job(number, name, made, "", rows)

    def note(self, job: Job, provider_id: str) -> None:
        """Write down what the provider calls it."""
        with self._log.session() as connection:
            connection.execute("UPDATE jobs SET provider_id = ? WHERE id = ?", (provider_id, job.number))

    def under_way(self, model: str) -> list[Job]:
        """Jobs whose results were not taken in yet."""
        of_call = "SELECT key, id, charged_input, charged_output FROM calls WHERE job = ? AND outcome = ?"
        jobs = []
        with self._log.session() as connection:
            select = "SELECT id, name, at, provider_id FROM jobs WHERE model = ? AND NOT is_over ORDER BY id"
            for number, name, at, provider_id in connection.execute(select, (model,)).fetchall():
                waiting = connection.execute(of_call, (number, SENT))
                rows = {key: WaitingRow(row, TokenUsage(*charged).in_batch()) for key, row, *charged in waiting}
                jobs.append(Job(number, name, datetime.fromisoformat(at), provider_id, rows))
        return jobs

    def end(self, job: Job, ended: Iterable[Ended]) -> None:
        """Write down what came of its calls; when all have ended, nothing more is awaited of it."""
        left = "EXISTS (SELECT 1 FROM calls WHERE job = jobs.id AND outcome = ?)"
        with self._log.session() as connection:
            for each in ended:
                update(connection, *each)
            connection.execute(f"UPDATE jobs SET is_over = NOT {left} WHERE id = ?", (SENT, job.number))

    def forget(self, job: Job) -> None:
        """Of a job that the provider never worked on: neither it nor its calls were made."""
        with self._log.session() as connection:
            connection.execute("DELETE FROM calls WHERE job = ?", (job.number,))
            connection.execute("DELETE FROM jobs WHERE id = ?", (job.number,))
