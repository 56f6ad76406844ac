from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgkd_agent.errors import StorageError
from pgkd_agent.teacher.call_log import Call, CallLog, RawReply
from pgkd_agent.types import TokenUsage


def call(index: int) -> Call:
    messages = [{"role": "human", "content": f"été {index}"}]
    return Call(1, index, 0, "m", "hash", {"seed": index}, messages)


def reply(index: int) -> RawReply:
    return RawReply(f"reply {index}", "stop", TokenUsage(3, 4), 0.5)


def test_calls_of_many_threads_are_all_there_and_on_disk(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda index: log.append(call(index).key, call(index), reply(index)), range(400)))
    rows = {row["request_index"]: row for row in log}
    assert len(rows) == 400 and rows[7]["reply"] == "reply 7" and "été 7" in rows[7]["messages"]
    assert (rows[7]["input_tokens"], rows[7]["output_tokens"]) == (3, 4)
    log.close()
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (400,)
    connection.close()


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        CallLog(tmp_path / "no-folder" / "calls.sqlite").append("key", call(1), reply(1))
    (tmp_path / "calls.sqlite").write_bytes(b"no database, but long enough to be looked at " * 100)
    with pytest.raises(StorageError, match="cannot be opened"):
        CallLog(tmp_path / "calls.sqlite").find("key")


def test_a_log_that_is_only_looked_into_leaves_no_file(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    assert log.find("key") is None
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_read_back_by_key(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    for index in range(3):
        log.append(call(index).key, call(index), reply(index))
    log.close()
    again = CallLog(tmp_path / "calls.sqlite")
    assert again.find(call(1).key) == reply(1) and again.find(call(3).key) is None
    again.close()


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    log.append("key", call(0), reply(0))
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        connection.execute("DROP TABLE calls")
    connection.close()
    with pytest.raises(StorageError, match="cannot be written"):
        log.append("key", call(1), reply(1))
    log.close()
