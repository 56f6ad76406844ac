"""Tables that are written block by block, and gone on with."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.answering.output import FORMATS, LabelledTable
from pgkd_agent.errors import ConfigError, StorageError

Pair = tuple[dict[str, Any], dict[str, Any]]
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=20)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    if path.suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write(target: Path, blocks: list[list[Pair]], work: str = "w", ends: bool = True) -> int:
    """Returns how many rows were there before."""
    table = LabelledTable(target, work)
    before = table.num_rows
    try:
        for block in blocks:
            table.write(block)
        if ends:
            table.finish()
    finally:
        table.close()
    return before


def pair(text: str, label: str | None = "fruit") -> Pair:
    return {"id": 7, "text": text}, {"predicted_label": label, "confidence": 0.5}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_stopped_table_is_gone_on_with_and_is_as_if_it_had_not_been(tmp_path: Path, suffix: str) -> None:
    blocks = [[pair('an "apple",\nor\ttwo'), pair("plum", None)], [pair("\u2028ä 😀")], [pair("")]]
    write(tmp_path / f"whole{suffix}", blocks)
    target = tmp_path / f"a{suffix}"
    assert write(target, blocks[:1], ends=False) == 0 and not target.exists()
    with (tmp_path / f"a{suffix}.part").open("ab") as file:  # a block that was cut short
        file.write(b'{"id": 7, "te')
    assert write(target, blocks[1:2], ends=False) == 2
    assert write(target, blocks[2:]) == 3
    assert rows_of(target) == rows_of(tmp_path / f"whole{suffix}")
    assert [row["text"] for row in rows_of(target)] == ['an "apple",\nor\ttwo', "plum", "\u2028ä 😀", ""]
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        f"a{suffix}",
        f"whole{suffix}",
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_every_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], suffix: str
) -> None:
    target = tmp_path_factory.mktemp("t") / f"a{suffix}"
    write(target, [[pair(text) for text in texts]])
    assert [row["text"] for row in rows_of(target)] == texts


def test_parquet_keeps_numbers_where_a_column_has_nothing_else(tmp_path: Path) -> None:
    found = {"predicted_label": "fruit"}
    records = [
        {"id": 2**60 + 1, "share": 1, "mixed": 1, "flag": True, "list": [1]},
        {"id": None, "share": 0.5, "mixed": "x", "flag": None, "list": None},
    ]
    write(tmp_path / "a.parquet", [[(record, found) for record in records]])
    first, second = rows_of(tmp_path / "a.parquet")
    assert first == {"id": 2**60 + 1, "share": 1.0, "mixed": "1", "flag": "true", "list": "[1]", **found}
    assert second == {"id": None, "share": 0.5, "mixed": "x", "flag": None, "list": None, **found}


def test_a_part_of_other_work_or_a_damaged_one_is_not_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    write(target, [[pair("plum")]], ends=False)
    with pytest.raises(ConfigError, match="another input, model or options"):
        write(target, [], work="other")
    (tmp_path / "a.csv.part").write_bytes(b"id")
    with pytest.raises(StorageError, match="shorter than it was"):
        write(target, [])
    (tmp_path / "a.csv.part.json").write_bytes(b"{")
    with pytest.raises(StorageError, match="damaged"):
        write(target, [])


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    for name, message in (("there.csv", "exists already"), ("a.xlsx", "unknown format")):
        with pytest.raises(ConfigError, match=message):
            LabelledTable(tmp_path / name, "w")
    with pytest.raises(ConfigError, match="has a column 'confidence'"):
        write(tmp_path / "a.csv", [[({"confidence": 1}, {"confidence": 0.5})]])
    with pytest.raises(ConfigError, match="'more' is new"):
        write(tmp_path / "b.csv", [[({"text": "a"}, {}), ({"text": "b", "more": 1}, {})]])
