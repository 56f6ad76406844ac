from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgkd_agent.errors import StorageError
from pgkd_agent.teacher.calls.call_log import ANSWERED, Call, CallLog, RawReply
from pgkd_agent.teacher.calls.job_log import JobLog
from pgkd_agent.teacher.calls.replies import Replies
from pgkd_agent.types import TokenUsage


def call(index: int) -> Call:
    messages = [{"role": "human", "content": f"été {index}"}]
    return Call(1, index, 0, "m", "hash", {"seed": index}, messages)


def reply(index: int) -> RawReply:
    return RawReply(f"reply {index}", "stop", TokenUsage(3, 4), 0.5)


def answered(log: CallLog, index: int) -> None:
    row = log.begin(call(index).key, call(index), TokenUsage(50, 60))
    log.end(row, ANSWERED, reply(index).usage, reply(index))


def test_calls_of_many_threads_are_all_there_and_on_disk(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda index: answered(log, index), range(100)))
    rows = {row["request_index"]: row for row in log}
    assert len(rows) == 100 and rows[7]["reply"] == "reply 7" and "été 7" in rows[7]["messages"]
    assert (rows[7]["input_tokens"], rows[7]["output_tokens"]) == (3, 4)
    assert list(log.charged()) == [("m", 100, TokenUsage(300, 400))]
    log.close()
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM calls").fetchone() == (100,)
    connection.close()


def test_a_call_is_charged_in_full_until_it_has_ended(tmp_path: Path) -> None:
    """A process that is killed in the middle of it leaves it so."""
    log = CallLog(tmp_path / "calls.sqlite")
    row = log.begin("key", call(0), TokenUsage(50, 60))
    again = CallLog(tmp_path / "calls.sqlite")
    assert list(again.charged()) == [("m", 1, TokenUsage(50, 60))] and again.find("key") is None
    log.end(row, "PASSING", TokenUsage(), error="down")
    assert list(again.charged()) == [("m", 1, TokenUsage())]
    assert again.find("key") is None and again.find_failure("key") == ("PASSING", "down")
    log.add("other", call(1), reply(1))  # from another run: no call, no charge
    assert list(again.charged()) == [("m", 1, TokenUsage())] and again.find("other") == reply(1)
    log.close()
    again.close()


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "calls.sqlite").write_bytes(b"no database, but long enough to be looked at " * 100)
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE calls (key TEXT)")
    connection.close()
    for path in (tmp_path / "file" / "calls.sqlite", tmp_path / "calls.sqlite", tmp_path / "other.sqlite", tmp_path):
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(StorageError, match="cannot be used"):
            CallLog(path).open()
        with pytest.raises(StorageError, match="cannot be used"):
            CallLog(path).add("key", call(1), reply(1))
        for look in (lambda log: log.find("key"), lambda log: log.find_failure("key"), lambda log: list(log.charged())):
            if path.exists():
                with pytest.raises(StorageError, match="cannot be used"):
                    look(CallLog(path))
        assert not path.is_file() or path.read_bytes() == before


def test_the_folder_of_a_log_is_made(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "new" / "folder" / "calls.sqlite")
    log.open()
    log.close()
    assert (tmp_path / "new" / "folder" / "calls.sqlite").is_file()


def test_a_log_that_is_only_looked_into_leaves_no_file(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    assert log.find("key") is None and log.find_failure("key") is None and list(log.charged()) == []
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_read_back_by_key(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    for index in range(3):
        answered(log, index)
    log.close()
    again = CallLog(tmp_path / "calls.sqlite")
    assert again.find(call(1).key) == reply(1) and again.find(call(3).key) is None
    again.close()


def test_where_runs_share_replies_the_server_counts() -> None:
    assert call(1).key_at("http://a") == call(1).key_at("http://a") != call(1).key_at("http://b")
    assert call(1).key_at("http://a") != call(2).key_at("http://a")


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.sqlite")
    answered(log, 0)
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        connection.execute("DROP TABLE calls")
    connection.close()
    with pytest.raises(StorageError, match="cannot be used: no such table"):
        log.begin("key", call(1), TokenUsage())
    log.close()


def test_many_processes_may_open_a_new_log_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pgkd_agent.teacher.calls.call_log import CallLog; "
        "[CallLog(f'{sys.argv[1]}/{number}').open() for number in range(60)]"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=100)[1] for process in processes] == [""] * 3


@pytest.mark.parametrize("column", ["key", "reply", "charged_input"])
def test_a_value_that_was_damaged_is_named(tmp_path: Path, column: str) -> None:
    """SQLite has no notice of it; a call with another key would be paid again."""
    path = tmp_path / "calls.sqlite"
    log = CallLog(path)
    answered(log, 0)
    answered(log, 1)
    log.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE calls SET {column} = {column} || '0' WHERE id = 2")
    connection.close()
    with pytest.raises(StorageError, match=r"damaged \(call 2 is not what was written\)"):
        CallLog(path).find(call(0).key)


def test_a_torn_index_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    log = CallLog(path)
    for index in range(40):
        answered(log, index)
    log.close()
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(StorageError, match="cannot be used"):
        CallLog(path).find(call(0).key)


def test_a_log_of_version_3_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    log = CallLog(path)
    answered(log, 0)
    log.close()
    with sqlite3.connect(path) as connection:
        for column in ("checksum", "batch", "job"):
            connection.execute(f"ALTER TABLE calls DROP COLUMN {column}")
        connection.execute("DROP TABLE jobs")
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    again = CallLog(path)
    assert again.find(call(0).key) == reply(0)
    assert JobLog(again).under_way(call(0).model) == []
    answered(again, 1)
    again.close()
    assert CallLog(path).find(call(1).key) == reply(1)


def test_a_reply_that_was_logged_but_not_shared_is_shared_later(tmp_path: Path) -> None:
    """The process was killed in between; another run would pay for it again."""
    log = CallLog(tmp_path / "calls.sqlite")
    answered(log, 0)
    replies = Replies(log, tmp_path / "cache.sqlite")
    assert replies.find_shared(call(0), "server") is None
    assert replies.find(call(0), "server") == reply(0)
    assert replies.find_shared(call(0), "server") == reply(0)
    replies.close()
    log.close()
