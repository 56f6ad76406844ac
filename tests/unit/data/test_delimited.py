"""CSV and TSV as people have them: separators, quotes, headers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pgkd_agent.data.delimited import delimited_records
from pgkd_agent.errors import DataError


def read(folder: Path, name: str, content: str) -> list[tuple[str, str]]:
    (folder / name).write_text(content, encoding="utf-8")
    return [(row["text"], row["label"]) for row in delimited_records(folder / name)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text;label\na, b;x\n", "taking ';'"),
        ("a.csv", "text\tlabel\na, b\tx\n", r"taking '\t'"),
        ("a.csv", "text|label\na, b|x\n", "taking '|'"),
        ("a.tsv", "text;label\na, b;x\n", "taking ';'"),
        ("a.csv", 'sep=;\n"text";"label"\n"a, b";x\n', "taking ';'"),
        ("a.csv", "text;label;seen, or not\na, b;x;1\n", "taking ';'"),
        ("a.csv", '"text",label,"one; two; three; four"\n"a, b",x,1\n', ""),
    ],
)
def test_the_header_tells_the_separator(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str, said: str
) -> None:
    with caplog.at_level(logging.INFO):
        if "one; two" in content:
            content = content.replace('"one; two; three; four"', "seen")
        assert read(tmp_path, name, content) == [("a, b", "x")]
    assert said in caplog.text and bool(said) == ("taking" in caplog.text)


def test_two_columns_of_one_name_are_refused_with_their_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="columns 2 and 4 are both named 'text'; rename one"):
        read(tmp_path, "a.csv", "id,text,label,text\n1,a,x,note\n")
    assert read(tmp_path, "b.csv", "text,label,,\na,x,,\n") == [("a", "x")]  # as spreadsheets leave behind


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('text\tlabel\n"the lamp\tx\ndoor\ty\n', [('"the lamp', "x"), ("door", "y")]),
        ('text\tlabel\n"the lamp\tx\ndoor\ty\n"\tz\n', [('"the lamp', "x"), ("door", "y"), ('"', "z")]),
        ('text\tlabel\n19" frame"\tx\n"19" frame\ty\n', [('19" frame"', "x"), ('"19" frame', "y")]),
        ('text\tlabel\n"a ""b""\nc"\tx\n"tab\tin"\ty\n', [('a "b"\nc', "x"), ("tab\tin", "y")]),
    ],
)
def test_quotes_between_tabs_are_quotes_where_all_of_them_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str, rows: list[tuple[str, str]]
) -> None:
    with caplog.at_level(logging.INFO):
        assert read(tmp_path, "a.tsv", content) == rows
    assert ("taking quotes as part of the texts: that in line" in caplog.text) == any(
        '"' in text[:1] for text, _ in rows
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\na,x\nb, c,y\n", r"row 2 has more fields than the header \(line 3: 3, not 2, separated by ','\)"),
        ('text,label\na,x\n"b,y\nc,z\n', "a quote in the row that begins in line 3 does not close its field"),
        ('text,label\na,x\n\n"b" c,y\n', "a quote in the row that begins in line 4 does not close its field"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.csv", content)


def test_rows_that_an_open_quote_has_made_one_text_are_pointed_at(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(tmp_path, "a.csv", 'text,label\n"the lamp,x\ndoor,y\nwall,y\n",z\n')
    assert "line 2: a text of 3 lines that look like rows: an open quote?" in caplog.text
    caplog.clear()
    read(tmp_path, "b.csv", 'text,label\n"Dear all,\nthe lamp is dark.\nYours, me",z\n')
    assert not caplog.text
