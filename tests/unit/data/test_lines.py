"""Which encodings are read, and what is said of the others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgkd_agent.data.lines import existing, read_text_file
from pgkd_agent.errors import DataError

TEXT = "naïve 好\nsecond\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_what_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    assert read_text_file(tmp_path / "a.txt") == TEXT


def test_half_a_pair_stays_for_the_one_who_counts_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a \ud83d b".encode("utf-8", "surrogatepass"))
    assert read_text_file(tmp_path / "a.txt") == "a \ud83d b"
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe" + "a \udc80 b".encode("utf-16-le", "surrogatepass"))
    assert read_text_file(tmp_path / "b.txt") == "a \udc80 b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\ncafé\n".encode("cp1252"), r"line 2: byte 0xe9 is not UTF-8; the file looks like WINDOWS-1252"),
        ("one\n".encode("utf-16-le"), r"line 1: a NUL byte; the file is in UTF-16LE without a mark"),
        ("one\n".encode("utf-16-be"), r"line 1: a NUL byte; the file is in UTF-16BE without a mark"),
        (TEXT.encode("utf-16")[:-1], "after line 1: not UTF-16, as it begins; it is damaged"),
        (b"\x1f\x8b\x08\x01\xe9\n", "line 1: byte 0x8b is not UTF-8, and the file looks binary or packed"),
        (b"a\0b\n", "line 1: a NUL byte; the file is binary or damaged"),
    ],
)
def test_other_encodings_are_refused_by_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text_file(tmp_path / "a.txt")


def test_the_advice_works_when_followed(tmp_path: Path) -> None:
    for encoding in ("cp1252", "utf-16-le"):
        (tmp_path / "a.txt").write_bytes(
            "déjà\n".encode(encoding) if encoding == "cp1252" else "one\n".encode(encoding)
        )
        with pytest.raises(DataError, match="save it as UTF-8") as caught:
            read_text_file(tmp_path / "a.txt")
        advice = str(caught.value).split("(")[1].rstrip(")").replace("FILE", "a.txt").replace("NEW", "b.txt")
        subprocess.run(advice, shell=True, check=True, cwd=tmp_path)
        assert read_text_file(tmp_path / "b.txt") in ("déjà\n", "one\n")


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; expected a file"):
        existing(tmp_path)
    with pytest.raises(DataError, match="/dev/null is a pipe or device"):
        existing(Path("/dev/null"))
    with pytest.raises(DataError, match="no such file"):
        existing(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        existing(tmp_path / ("n" * 999))
