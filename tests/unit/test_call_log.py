from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgkd_agent.errors import StorageError
from pgkd_agent.prompts import Message
from pgkd_agent.teacher.call_log import Call, CallLog, RawReply
from pgkd_agent.types import TokenUsage


def call(index: int) -> Call:
    messages = (Message("human", f"été {index}"),)
    return Call(1, index, 0, "m", "hash", {"seed": index}, messages)


def reply(index: int) -> RawReply:
    return RawReply(f"reply {index}", "stop", TokenUsage(3, 4), 0.5)


def test_calls_of_many_threads_are_all_there_and_on_disk(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda index: log.append(call(index), reply(index)), range(400)))
    rows = {row["request_index"]: row for row in log}
    assert len(rows) == 400 and rows[7]["reply"] == "reply 7" and "été 7" in rows[7]["messages"]
    assert (rows[7]["input_tokens"], rows[7]["output_tokens"]) == (3, 4)
    log.close()
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (400,)
    connection.close()


def test_a_log_that_cannot_be_opened_or_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        CallLog(tmp_path / "no-folder" / "calls.sqlite")
    log = CallLog()
    log.close()
    with pytest.raises(StorageError, match="cannot be written"):
        log.append(call(1), reply(1))
