"""Every model call of a run in SQLite: prompt, raw reply, finish reason, usage, latency, charge. No credentials.

It is the audit, the account and the point to resume from: a row is there before its call is sent, charged with all
that the call may take, so that a killed process leaves no call out; a question that was answered is not asked again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgkd_agent.errors import StorageError
from pgkd_agent.teacher.calls.tables import COLUMNS, connected, seal
from pgkd_agent.text import well_formed
from pgkd_agent.types import Alternatives, TokenUsage

SENT = "sent"
"""Outcome of a call that nothing is known of yet."""
ANSWERED = "answered"
FOUND = "found"
"""Outcome of a call that was not sent, since another run had the answer."""

REFUSALS = ("refusal", "content_filter", "content_filtered", "guardrail_intervened")
"""Finish reasons of providers whose model or filter declined to answer."""


@dataclass(frozen=True, slots=True)
class RawReply:
    """What came back, as it came.

    Attributes:
        note: What came instead of a text, where there is none.
        alternatives: Where they were asked for and the provider gives them; else empty.
    """

    text: str
    finish_reason: str
    usage: TokenUsage
    seconds: float
    note: str = ""
    alternatives: Alternatives = ()

    @property
    def is_cut_off(self) -> bool:
        return self.finish_reason in ("length", "max_tokens", "model_context_window_exceeded")

    @property
    def is_refusal(self) -> bool:
        return self.finish_reason in REFUSALS


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked; `settings` is what goes along with the messages: sampling, schema, tools."""

    kd_step: int
    request_index: int
    attempt: int
    model: str
    prompt_hash: str
    settings: dict[str, Any]
    messages: Sequence[dict[str, Any]]

    @property
    def key(self) -> str:
        """Of all that decides the reply: two identical requests of one step differ in their index."""
        return _hash((self.model, self.settings, self.messages, self.kd_step, self.request_index, self.attempt))

    def key_at(self, server: str) -> str:
        """The same where runs share replies: a model of this name may be another one on another server."""
        return _hash((server, self.key))


class CallLog:
    """Append-only; each call is on disk before it is sent, and its reply before it is parsed.

    The file is made with the first use, so that nothing is left where no teacher could be reached.

    Args:
        path: The database; `:memory:` keeps the log for the life of the object.
    Raises:
        StorageError: Any method: the database cannot be opened, read or written, or is none of this package.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._path = path
        self._lock = threading.Lock()  # a connection may be used by many threads, but by one at a time
        self._opened: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file now, and make it where it is not there."""
        with self.session():
            pass

    def begin(self, key: str, call: Call, most: TokenUsage) -> int:
        """Write down a call that is about to be sent, charged with the most that it may take.

        Args:
            key: Of the call as it was meant; `call` is what is sent in the end.
        Returns:
            The row, for `end`.
        """
        with self.session() as connection:
            return insert(connection, key, call, {"outcome": SENT, **charge(most)})

    def end(self, row: int, outcome: str, charged: TokenUsage, reply: RawReply | None = None, error: str = "") -> None:
        """Write down how a call ended.

        Args:
            outcome: `ANSWERED`, or the kind of failure.
            charged: What counts against the caps.
        """
        with self.session() as connection:
            update(connection, row, outcome, charged, reply, error)

    def add(self, key: str, call: Call, reply: RawReply) -> None:
        """Write down a reply that another run paid for."""
        with self.session() as connection:
            insert(connection, key, call, {"outcome": FOUND, **_fields(reply), "batch": int(reply.usage.is_batch)})

    def find(self, key: str) -> RawReply | None:
        """The reply to the call with this key, or None where there is none."""
        columns = "reply, finish_reason, input_tokens, output_tokens, charged_input, charged_output, seconds, error"
        select = f"SELECT {columns}, alternatives, batch FROM calls WHERE key = ? AND outcome IN (?, ?)"
        row = self._newest(select, key, ANSWERED, FOUND)
        if row is None:
            return None
        (
            text,
            finish_reason,
            input_tokens,
            output_tokens,
            charged_input,
            charged_output,
            seconds,
            note,
            others,
            batch,
        ) = row
        usage = TokenUsage(input_tokens, output_tokens)
        if usage == TokenUsage() and (charged_input or charged_output):
            usage = TokenUsage(charged_input, charged_output, 1)
        usage = usage.in_batch() if batch else usage
        places = tuple(tuple((token, chance) for token, chance in place) for place in json.loads(others))
        return RawReply(text, finish_reason, usage, seconds, note, places)

    def find_failure(self, key: str) -> tuple[str, str] | None:
        """How the last try of a call ended that brought no reply: kind and error; None where it was not made."""
        row = self._newest("SELECT outcome, error FROM calls WHERE key = ? AND outcome != ?", key, SENT)
        return None if row is None else (row[0], row[1])

    def charged(self) -> Iterator[tuple[str, int, TokenUsage]]:
        """What counts against the caps, by model, and by batch jobs or not: its name, calls, tokens."""
        sums = "model, batch, COUNT(*), SUM(charged_input), SUM(charged_output)"
        if self._is_absent:
            return
        with self.session() as connection:
            rows = connection.execute(
                f"SELECT {sums} FROM calls WHERE outcome != ? GROUP BY model, batch", (FOUND,)
            ).fetchall()
        for model, batch, calls, input_tokens, output_tokens in rows:
            used = TokenUsage(input_tokens, output_tokens)
            yield model, calls, used.in_batch() if batch else used

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows in the order they were written, columns as in the table."""
        with self.session() as connection:
            cursor = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM calls ORDER BY id")
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
        return (dict(zip(names, row, strict=True)) for row in rows)

    def close(self) -> None:
        """Close the file; the log can be used again and opens it anew."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _is_absent(self) -> bool:
        return self._opened is None and self._path != ":memory:" and not Path(self._path).exists()

    def _newest(self, select: str, *values: str) -> tuple[Any, ...] | None:
        if self._is_absent:
            return None
        with self.session() as connection:
            row: tuple[Any, ...] | None = connection.execute(f"{select} ORDER BY id DESC", values).fetchone()
        return row

    @contextmanager
    def session(self) -> Iterator[sqlite3.Connection]:
        """The connection for one thread at a time; what is written is on disk afterwards."""
        try:
            with self._lock:
                if self._opened is None:
                    self._opened = connected(self._path)
                with self._opened:
                    yield self._opened
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"call log {self._path} cannot be used: {error}") from error


def insert(connection: sqlite3.Connection, key: str, call: Call, fields: dict[str, Any]) -> int:
    """Write a row, and return its number."""
    row = {
        "key": key,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **asdict(call),
        "settings": well_formed(json.dumps(call.settings, ensure_ascii=False)),
        "messages": well_formed(json.dumps(call.messages, ensure_ascii=False)),
        **fields,
    }
    columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    inserted = connection.execute(f"INSERT INTO calls ({columns}) VALUES ({marks})", row).lastrowid
    assert inserted is not None  # after an INSERT into a table with a row id
    seal(connection, inserted)
    return inserted


def update(
    connection: sqlite3.Connection, row: int, outcome: str, charged: TokenUsage, reply: RawReply | None, error: str
) -> None:
    """See `CallLog.end`."""
    fields = {"outcome": outcome, "error": error, **(_fields(reply) if reply else {}), **charge(charged)}
    marks = ", ".join(f"{name} = :{name}" for name in fields)
    connection.execute(f"UPDATE calls SET {marks} WHERE id = :id", {**fields, "id": row})
    seal(connection, row)


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def charge(usage: TokenUsage) -> dict[str, int]:
    """What counts against the caps, as columns."""
    return {
        "charged_input": usage.input_tokens,
        "charged_output": usage.output_tokens,
        "batch": int(usage.is_batch),
    }


def _fields(reply: RawReply) -> dict[str, Any]:
    """Tokens as the provider reported them; an estimate is in the charge alone."""
    reported = TokenUsage() if reply.usage.estimated_calls else reply.usage
    return {
        "reply": reply.text,
        "finish_reason": reply.finish_reason,
        "input_tokens": reported.input_tokens,
        "output_tokens": reported.output_tokens,
        "seconds": reply.seconds,
        "error": reply.note,
        "alternatives": well_formed(json.dumps(reply.alternatives, ensure_ascii=False)),
    }
