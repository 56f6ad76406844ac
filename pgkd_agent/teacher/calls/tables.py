"""The tables of a call log in SQLite."""

from __future__ import annotations

import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from pgkd_agent.files import make_folder

LONGEST_LOCK = 60.0
"""Seconds to wait while another process writes to a file that runs share."""

_SCHEMA = """
CREATE TABLE calls (
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
    outcome TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    reply TEXT NOT NULL DEFAULT '',
    finish_reason TEXT NOT NULL DEFAULT '',
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    charged_input INTEGER NOT NULL DEFAULT 0,
    charged_output INTEGER NOT NULL DEFAULT 0,
    alternatives TEXT NOT NULL DEFAULT '[]',
    batch INTEGER NOT NULL DEFAULT 0,
    job INTEGER
)
"""
_JOBS = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    at TEXT NOT NULL,
    model TEXT NOT NULL,
    provider_id TEXT NOT NULL DEFAULT '',
    is_over INTEGER NOT NULL DEFAULT 0
)
"""
"""Batch jobs of the provider; see `job_log`."""
_ADD_BATCHES = (
    "ALTER TABLE calls ADD COLUMN batch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE calls ADD COLUMN job INTEGER",
)
_ADD_CHECKSUMS = "ALTER TABLE calls ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0"
"""Of all that a row says: what SQLite has no notice of is damage within a value."""
COLUMNS = tuple(re.findall(r"^    (\w+) ", _SCHEMA, re.MULTILINE))
"""Of `calls`."""
_CHECKSUM = f"checksum_of({', '.join(COLUMNS)})"
_VERSION, _BEFORE = 4, 3
"""Of the tables; SQLite keeps it in the file. Version 3 had neither batch jobs nor checksums."""


def connected(path: Path | str) -> sqlite3.Connection:
    """A connection for all threads to a database that has the tables; made where it is not there.

    Raises:
        sqlite3.Error, OSError: It cannot be opened, is none of this package, or damaged.
    """
    make_folder(Path(path).parent)
    connection = sqlite3.connect(path, check_same_thread=False, timeout=LONGEST_LOCK)
    try:
        connection.create_function("checksum_of", len(COLUMNS), _checksum_of, deterministic=True)
        if _version(connection) != _VERSION:
            connection.execute("BEGIN IMMEDIATE")  # another process may be making it
            _make(connection)
            connection.commit()
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def seal(connection: sqlite3.Connection, row: int) -> None:
    """Write down the checksum of a call that was written or changed."""
    connection.execute(f"UPDATE calls SET checksum = {_CHECKSUM} WHERE id = ?", (row,))


def _make(connection: sqlite3.Connection) -> None:
    """What is not there yet."""
    version = _version(connection)
    if version == _VERSION:
        return
    statements = _ADD_BATCHES if version else (_SCHEMA, "CREATE INDEX calls_key ON calls (key)")
    for statement in (*statements, _JOBS, _ADD_CHECKSUMS, f"UPDATE calls SET checksum = {_CHECKSUM}"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _version(connection: sqlite3.Connection) -> int | None:
    """None where nothing is made yet."""
    (num_tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if num_tables and version not in (_VERSION, _BEFORE):
        raise sqlite3.DatabaseError("a database of something else, or of another version of this package")
    return int(version) if num_tables else None


def _check(connection: sqlite3.Connection) -> None:
    """A damaged log would have calls paid again, or replies read that nobody gave."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    damaged = connection.execute(f"SELECT id FROM calls WHERE checksum != {_CHECKSUM}").fetchone()
    if found != "ok" or damaged:
        what = found if found != "ok" else f"call {damaged[0]} is not what was written"
        raise sqlite3.DatabaseError(f"it is damaged ({what}); put it back from a copy, or begin without it")


def _checksum_of(*values: Any) -> int:
    return zlib.crc32(repr(values).encode("utf-8", "backslashreplace"))
