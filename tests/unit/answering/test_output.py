"""Tables that are written block by block, and gone on with."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.answering.output import FORMATS, LabelledTable
from pgkd_agent.errors import ConfigError, StorageError

NEW = ("predicted_label", "confidence", "problem")
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
    table = LabelledTable(target, work, NEW)
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


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_that_had_its_name_already_leaves_nothing_else(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its last two writes; and in the middle of one."""
    target = tmp_path / f"a{suffix}"
    with monkeypatch.context() as killed:
        killed.setattr(LabelledTable, "_clear", lambda self: None)
        write(target, [[pair("apple")]])
    assert (tmp_path / f"a{suffix}.part.json").exists()
    with pytest.raises(ConfigError, match="exists already"):
        write(target, [])
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {target.name}
    target.unlink()
    for name in (f"a{suffix}.0123abcd.new", f"a{suffix}.part.json.0123abcd.new"):
        (tmp_path / name).write_text("half")
    write(target, [[pair("apple")]])
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {target.name}


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
        {"id": 2**60 + 1, "share": 1.5, "mixed": 1, "flag": True, "list": [1]},
        {"id": None, "share": 2**53 + 1, "mixed": "x", "flag": None, "list": None},
    ]
    write(tmp_path / "a.parquet", [[(record, found) for record in records]])
    first, second = rows_of(tmp_path / "a.parquet")
    added = {**found, "confidence": None, "problem": None}
    assert first == {"id": 2**60 + 1, "share": 1.5, "mixed": "1", "flag": "true", "list": "[1]", **added}
    assert second == {"id": None, "share": float(2**53), "mixed": "x", "flag": None, "list": None, **added}


def test_a_part_of_other_work_or_a_damaged_one_is_not_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    write(target, [[pair("plum")]], ends=False)
    with pytest.raises(ConfigError, match="another input, model or options"):
        write(target, [], work="other")
    (tmp_path / "a.csv.part").write_bytes(b"id")
    with pytest.raises(StorageError, match="shorter than it was"):
        write(target, [])
    for damaged in (b"{", b"{}", b"[]", b"3"):
        (tmp_path / "a.csv.part.json").write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            write(target, [])
    (tmp_path / "a.csv.part.json").unlink()
    with pytest.raises(ConfigError, match="no beginning of this"):
        write(target, [])
    assert (tmp_path / "a.csv.part").read_bytes() == b"id"


def test_a_process_may_have_ended_before_its_first_row(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [], ends=False)
    (tmp_path / "a.csv.part").unlink()
    assert write(tmp_path / "a.csv", [[pair("plum")]]) == 0 and len(rows_of(tmp_path / "a.csv")) == 1


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    for name, message in (("there.csv", "exists already"), ("a.xlsx", "unknown format")):
        with pytest.raises(ConfigError, match=message):
            LabelledTable(tmp_path / name, "w", NEW)
    with pytest.raises(StorageError, match="cannot be written"):
        LabelledTable(tmp_path / f"{'a' * 300}.csv", "w", NEW)
    with pytest.raises(ConfigError, match="has a column 'confidence'"):
        write(tmp_path / "a.csv", [[({"confidence": 1}, {"confidence": 0.5})]])
    with pytest.raises(ConfigError, match="'more' is new"):
        write(tmp_path / "b.csv", [[({"text": "a"}, {}), ({"text": "b", "more": 1}, {})]])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_values_that_json_does_not_have_and_half_a_surrogate_pair_are_written_as_text(
    tmp_path: Path, suffix: str
) -> None:
    record = {
        "text": "a \ud83d",
        "\ud83d": 1,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "of": Decimal("1.50"),
        "raw": b"x",
    }
    write(tmp_path / f"a{suffix}", [[(record, {"predicted_label": "fruit"})]])
    (row,) = rows_of(tmp_path / f"a{suffix}")
    assert row["text"] == "a \ufffd" and "2026-01-02" in row["at"] and "1.50" in row["of"]


def test_a_stopped_conversion_to_parquet_leaves_no_half_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.parquet"

    def stopped(*_arguments: Any) -> None:
        raise SystemExit(130)

    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.parquet.ParquetWriter, "write_table", stopped)
        with pytest.raises(SystemExit):
            write(target, [[pair("plum"), pair("pear")]])
    assert {path.name for path in tmp_path.glob("a.*")} == {"a.parquet.part", "a.parquet.part.json"}
    assert write(target, []) == 2 and len(rows_of(target)) == 2


def test_rows_without_one_of_the_new_columns_have_nothing_there(tmp_path: Path) -> None:
    rows: list[Pair] = [({"text": ""}, {}), ({"text": "a"}, {"predicted_label": "fruit", "problem": "no call"})]
    write(tmp_path / "a.csv", [rows])
    assert [row["problem"] for row in rows_of(tmp_path / "a.csv")] == ["", "no call"]
