"""Labels as they are written, and those that only look different."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkd_agent.data import read_taxonomy, taxonomy_of
from pgkd_agent.errors import DataError
from pgkd_agent.types import Example, Label


def test_yaml_leaves_names_as_written(tmp_path: Path) -> None:
    names = ["yes", "no", "012", "12:30", "2024-13-45", "1_000", "0x1F", "1e3", ".inf", "=", "null"]
    lines = [f"- {name}" if name != "null" else "- 'null'" for name in names]
    (tmp_path / "a.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert [label.name for label in read_taxonomy(tmp_path / "a.yaml")] == names
    (tmp_path / "b.yaml").write_text("on: 12:30\noff:\nno: ~\n", encoding="utf-8")
    assert read_taxonomy(tmp_path / "b.yaml") == (Label("on", "12:30"), Label("off"), Label("no"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "- a\n- null\n", "found None; quote it if it is a name"),
        ("a.yaml", "a: x\nb: y\na: z\n", "keys 1 and 3 are both named 'a'"),
        ("a.json", '{"a": "x", "b": "y", "a": "z"}', "keys 1 and 3 are both named 'a'"),
        ("a.yaml", "- [a, b]\n- c\n", r"found \['a', 'b'\]"),
    ],
)
def test_what_is_no_name_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_taxonomy(tmp_path / name)


def test_a_line_of_labels_ends_where_lines_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a\u2028b\r\nc\n".encode())
    assert [label.name for label in read_taxonomy(tmp_path / "a.txt")] == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("keys", "keys\u200b", r"'keys', 'keys\\u200b' \(U\+200B\)"),
        ("keys", "ke\u00adys", r"'ke\\xadys' \(U\+00AD\)"),
        ("caf\u00e9", "cafe\u0301", r"\(U\+0301\), 'caf.' \(U\+00E9\)"),
        ("can't", "can\u2019t", r"\(U\+2019\)"),
        ("big keys", "big\u00a0keys", r"\(U\+00A0\)"),
        ("1", "1.0", "'1', '1.0'; make them one"),
    ],
)
def test_labels_that_look_the_same_are_refused_with_code_points(one: str, other: str, shown: str) -> None:
    with pytest.raises(DataError, match=shown):
        taxonomy_of([Example("a", one), Example("b", other), Example("c", "lamp")])
    assert len(taxonomy_of([Example("a", "c"), Example("b", "c++"), Example("c", "1.0"), Example("d", "2")])) == 4
