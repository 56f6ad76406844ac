"""Texts read as a stream: the same as read whole, and no more of them than are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pytest

from pgkd_agent.data import formats, read_texts, stream_texts
from pgkd_agent.data import lines as lines_module
from pgkd_agent.errors import DataError

TEXTS = ["one", 'quotes " and, commas', "two\nlines", "größe 好", "last"]


def write_csv(path: Path, texts: list[str]) -> None:
    rows = ['"' + text.replace('"', '""') + '",x' for text in texts]
    path.write_bytes(("\ufefftext,label\r\n" + "\r\n\r\n".join(rows)).encode())


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("\n\n".join(json.dumps({"label": 1, "text": text}) for text in texts), encoding="utf-8")


def write_parquet(path: Path, texts: list[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": [1] * len(texts)}), path, row_group_size=100)


WRITERS = {"rows.csv": write_csv, "rows.jsonl": write_jsonl, "rows.parquet": write_parquet}


@pytest.mark.parametrize(("name", "write"), WRITERS.items())
def test_every_format_gives_its_texts(tmp_path: Path, name: str, write: Callable[[Path, list[str]], None]) -> None:
    write(tmp_path / name, TEXTS)
    assert list(stream_texts(tmp_path / name)) == read_texts(tmp_path / name) == TEXTS


def test_lines_of_text(tmp_path: Path) -> None:
    lines = "one\r\n \n\ntwo\u2028still two\rthree\x85\x0b\x0cstill three\n"
    expected = ["one", " ", "", "two\u2028still two", "three\x85\x0b\x0cstill three"]
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.txt").write_bytes(lines.encode(encoding))
        assert list(stream_texts(tmp_path / "a.txt")) == expected
        with (tmp_path / "a.txt").open("rb") as opened:
            assert list(stream_texts(opened)) == expected


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.txt"])
def test_lines_are_read_as_they_are_asked_for(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['{"text": "t"}' if name == "rows.jsonl" else "text"] * 100_000
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    read = []
    decoded_lines = lines_module.decoded_lines

    def counted(stream: BinaryIO, where: str) -> Iterator[str]:
        for line in decoded_lines(stream, where):
            read.append(line)
            yield line

    monkeypatch.setattr(lines_module, "decoded_lines", counted)
    assert len(list(islice(stream_texts(tmp_path / name), 10))) == 10
    assert 10 <= len(read) <= 15


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow

    write_parquet(tmp_path / "rows.parquet", [str(number) for number in range(1000)])
    monkeypatch.setattr(formats, "PARQUET_ROWS", 50)
    before = pyarrow.total_allocated_bytes()
    texts = stream_texts(tmp_path / "rows.parquet")
    assert list(islice(texts, 60)) == [str(number) for number in range(60)]
    assert pyarrow.total_allocated_bytes() - before < 100_000
    assert list(texts) == [str(number) for number in range(60, 1000)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"no json", "line 1 is not JSON"),
        ("a.csv", b"x,y\n1,2\n", "name it with `data.text_column`"),
        ("a.txt", b"caf\xe9\n", "WINDOWS-1252"),
        ("a.txt", "text\r\n".encode("utf-16-le"), "in UTF-16LE without a mark: save it as UTF-8"),
        ("a.txt", b"a\0b", "NUL"),
        ("a.parquet", b"none", "not a readable Parquet"),
        ("a.doc", b"text", "unknown format"),
        ("missing.txt", None, "no such file"),
    ],
)
def test_what_the_first_row_shows_is_an_error_before_any_text(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        stream_texts(tmp_path / name)


def test_a_bad_row_comes_after_the_good_ones(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n{"text": "two"}\n{"text": "caf\xe9"}\n')
    texts = stream_texts(tmp_path / "a.jsonl")
    assert [next(texts), next(texts)] == ["one", "two"]
    with pytest.raises(DataError, match="line 3: byte 0xe9"):
        next(texts)


def test_empty_files_have_no_texts(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv", "a.jsonl"):
        (tmp_path / name).write_text("")
        assert list(stream_texts(tmp_path / name)) == []
