"""JSON in its shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkd_agent.data import read_records
from pgkd_agent.errors import DataError

ROWS = [{"text": "a", "label": "x"}, {"text": "b\u2028c", "label": "y"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"text": "a", "label": "x"}, {"text": "b\u2028c", "label": "y"}]'),
        ("a.jsonl", '\n[\n{"text": "a", "label": "x"},\n{"text": "b\u2028c", "label": "y"}\n]'),
        ("a.json", '{"text": ["a", "b\u2028c"], "label": ["x", "y"]}'),
        ("a.json", '{\n"text": ["a", "b\u2028c"],\n"label": ["x", "y"]\n}'),
        ("a.json", '{"text": "a", "label": "x"}\n\n{"text": "b\u2028c", "label": "y"}\n'),
        ("A.JSONL", '{"text": "a", "label": "x"}\r{"text": "b\u2028c", "label": "y"}'),
    ],
)
def test_lists_columns_and_lines(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_records(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a", "text": "b"}', "line 1: an object: keys 1 and 2 are both named 'text'; rename one"),
        ("a.json", '[{"text": "a"},\n{"text": ]', "line 2 is not JSON"),
        ("a.json", "[1]", "row 1: expected an object, found int"),
        ("a.json", '"a"', "expected objects, found str"),
        ("a.jsonl", '["a", "x"]\n["b", "y"]\n', "line 2 is not JSON: Extra data"),
        ("a.json", '{"text": ["a"], "label": []}', "columns of different lengths: 1 'text', 0 'label'"),
        ("a.jsonl", f'{{"text": {"9" * 5000}}}', "line 1: a number has too many digits; put it in quotes"),
        ("a.jsonl", '{"text": ' + "[" * 100_000, "line 1: lists or objects are nested too deeply"),
        ("a.json", "[" * 100_000, "a.json: lists or objects are nested too deeply"),
        ("a.csv.gz", "", r"unknown format '\.gz'; expected one of .*; unpack it first"),
    ],
)
def test_mistakes_in_json_are_named_by_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / name)
