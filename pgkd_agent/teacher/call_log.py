"""Every model call of a run in SQLite: prompt, raw reply, finish reason, usage, latency. No credentials.

It is the audit and the point to resume from: a question that was answered before is not asked again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgkd_agent.errors import StorageError
from pgkd_agent.types import TokenUsage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    at TEXT NOT NULL,
    kd_step INTEGER NOT NULL,
    request_index INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    model TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    settings TEXT NOT NULL,
    messages TEXT NOT NULL,
    reply TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL
)
"""


REFUSALS = ("refusal", "content_filter", "content_filtered", "guardrail_intervened")
"""Finish reasons of providers whose model or filter declined to answer."""


@dataclass(frozen=True, slots=True)
class RawReply:
    """What came back, as it came."""

    text: str
    finish_reason: str
    usage: TokenUsage
    seconds: float

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
        asked = (
            self.model,
            self.settings,
            self.messages,
            self.kd_step,
            self.request_index,
            self.attempt,
        )
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class CallLog:
    """Append-only; each call is on disk before its reply is parsed.

    The file is made with the first use, so that nothing is left where no teacher could be reached.

    Args:
        path: The database; `:memory:` keeps the log for the life of the object.
    """

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._path = path
        self._lock = threading.Lock()  # a connection may be used by many threads, but by one at a time
        self._opened: sqlite3.Connection | None = None

    @property
    def _connection(self) -> sqlite3.Connection:
        """
        Raises:
            StorageError: The database cannot be opened.
        """
        if self._opened is None:
            try:
                self._opened = sqlite3.connect(self._path, check_same_thread=False)
                self._opened.execute(_SCHEMA)
                self._opened.execute("CREATE INDEX IF NOT EXISTS calls_key ON calls (key)")
                self._opened.commit()
            except sqlite3.Error as error:
                raise StorageError(f"call log {self._path} cannot be opened: {error}") from error
        return self._opened

    def append(self, key: str, call: Call, reply: RawReply) -> None:
        """Write one call; it is on disk when this returns.

        Args:
            key: Of the call as it was meant; `call` is what was sent in the end.
        Raises:
            StorageError: The database cannot be opened or written.
        """
        row = {
            "key": key,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "kd_step": call.kd_step,
            "request_index": call.request_index,
            "attempt": call.attempt,
            "model": call.model,
            "prompt_hash": call.prompt_hash,
            "settings": json.dumps(call.settings, ensure_ascii=False),
            "messages": json.dumps(call.messages, ensure_ascii=False),
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            **asdict(reply.usage),
            "seconds": reply.seconds,
        }
        columns, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        try:
            with self._lock, self._connection:
                self._connection.execute(f"INSERT INTO calls ({columns}) VALUES ({marks})", row)
        except sqlite3.Error as error:
            raise StorageError(f"call log {self._path} cannot be written: {error}") from error

    def find(self, key: str) -> RawReply | None:
        """The reply to the call with this key, or None where it was not made yet."""
        columns = "reply, finish_reason, input_tokens, output_tokens, seconds"
        if self._opened is None and self._path != ":memory:" and not Path(self._path).exists():
            return None
        with self._lock:
            row = self._connection.execute(f"SELECT {columns} FROM calls WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        text, finish_reason, input_tokens, output_tokens, seconds = row
        return RawReply(text, finish_reason, TokenUsage(input_tokens, output_tokens), seconds)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows in the order they were written, columns as in the table."""
        cursor = self._connection.execute("SELECT * FROM calls ORDER BY id")
        names = [column[0] for column in cursor.description]
        return (dict(zip(names, row, strict=True)) for row in cursor)

    def close(self) -> None:
        """Close the file; the log can be used again and opens it anew."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
