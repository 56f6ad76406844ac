"""`Replies`: what was answered before, in the run's own log or in the cache that runs share."""

from __future__ import annotations

from pathlib import Path

from pgkd_agent.errors import PGKDError, StorageError
from pgkd_agent.teacher.calls.call_log import Call, CallLog, RawReply
from pgkd_agent.teacher.calls.failures import SURVIVABLE
from pgkd_agent.types import TokenUsage


class Replies:
    """May be shared by threads.

    Args:
        log: Of the run; what it holds was paid by this run.
        cache: SQLite file with replies that runs share; None for none.
        replayed_steps: KD steps, from 0, that were stored whole before: all their calls are in the log.
        one_server: Whether the log is of a run, which may go on with another server for the same model; else the
            server is part of the key, as it is in the cache.
    Raises:
        StorageError: The cache cannot be opened.
    """

    def __init__(
        self, log: CallLog, cache: Path | None = None, replayed_steps: int = 0, one_server: bool = True
    ) -> None:
        self.log = log
        self._cache = CallLog(cache) if cache else None
        self._replayed_steps = replayed_steps
        self._one_server = one_server
        if self._cache:
            self._cache.open()

    def close(self) -> None:
        """Close the cache; the log is its owner's to close."""
        if self._cache:
            self._cache.close()

    def key(self, meant: Call, server: str) -> str:
        """Under which a call is in the log."""
        return meant.key if self._one_server else meant.key_at(server)

    def find(self, meant: Call, server: str) -> RawReply | None:
        """The reply from the run's own log; None where there is none.

        Raises:
            StorageError: The call is of a stored step, and not in the log.
            TeacherContextError, TeacherRejectedError: It is, and failed so.
        """
        key = self.key(meant, server)
        if logged := self.log.find(key):
            is_paid = logged.usage != TokenUsage()  # not one that was found in a cache
            if self._cache and is_paid and not self.find_shared(meant, server):  # killed between the two
                self._cache.add(meant.key_at(server), meant, logged)
            return logged
        if meant.kd_step < self._replayed_steps:
            raise self._missing(meant, key)
        return None

    def find_shared(self, meant: Call, server: str) -> RawReply | None:
        """A reply that another run paid for; None where there is none."""
        return self._cache.find(meant.key_at(server)) if self._cache else None

    def share(self, meant: Call, server: str, sent: Call, reply: RawReply) -> None:
        """Put a reply that was paid for into the cache, where there is one."""
        if self._cache:
            self._cache.add(meant.key_at(server), sent, reply)

    def _missing(self, meant: Call, key: str) -> PGKDError:
        """How a call of a stored step failed then; it is not sent again."""
        kind, text = self.log.find_failure(key) or ("", "")
        for survivable, error in SURVIVABLE.items():
            if kind == survivable.name:
                return error(text)
        return StorageError(
            f"KD step {meant.kd_step} is stored, but its request {meant.request_index} to {meant.model} is not in the "
            "run's call log: prompt, settings, model or machine are others than before. Nothing was sent; put back "
            "what was changed, or start a new run"
        )
