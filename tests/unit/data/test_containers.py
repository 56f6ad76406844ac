"""Rows as people hold them in Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.data import read_examples, with_splits
from pgkd_agent.errors import DataError
from pgkd_agent.pipeline import load_task
from pgkd_agent.types import Example

TEXTS, LABELS = [f"text {n}" for n in range(6)], ["a", "b"] * 3
ROWS = [Example(text, label) for text, label in zip(TEXTS, LABELS, strict=True)]


def arrow() -> Any:
    import pyarrow

    return pyarrow.table({"text": TEXTS, "label": LABELS})


def frame() -> Any:
    import pandas

    return pandas.DataFrame({"text": TEXTS, "label": LABELS})


def arrays(**kind: Any) -> Any:
    import numpy

    return numpy.array(TEXTS, **kind), numpy.array(LABELS, **kind)


SOURCES: dict[str, Callable[[], Any]] = {
    "a tuple of columns": lambda: (TEXTS, LABELS),
    "a mapping of columns": lambda: {"text": TEXTS, "label": LABELS},
    "arrays": arrays,
    "arrays of objects": lambda: arrays(dtype=object),
    "series": lambda: (frame().text, frame().label),
    "named tuples": lambda: frame().itertuples(),
    "a stacked array": lambda: list(zip(*arrays(), strict=True)),
    "a generator": lambda: ({"text": row.text, "label": row.label} for row in ROWS),
    "an Arrow table": arrow,
    "what streams Arrow": lambda: arrow().to_reader(),
    "bytes": lambda: [(text.encode(), label) for text, label in zip(TEXTS, LABELS, strict=True)],
    "mixed rows": lambda: [ROWS[0], {"text": TEXTS[1], "label": "b"}, *zip(TEXTS[2:], LABELS[2:], strict=True)],
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_rows_from_everything(name: str) -> None:
    assert read_examples(SOURCES[name]()) == ROWS


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (("a text", "a label"), "row 1 is of type str; expected a mapping, a pair"),
        (TEXTS, "row 1 is of type str"),
        ([TEXTS, LABELS], r"row 1 has 6 values; .* as a tuple: \(texts, labels\)"),
        ((TEXTS, LABELS[1:]), "columns of different lengths: 6 'text', 5 'label'"),
        ({"text": "one", "label": "a"}, "a list for each column; found one object with 'text', 'label'"),
        ({"train": ROWS, "test": ROWS}, r"the splits train, test instead of rows; .*splits\['train'\]"),
        (5, "expected rows .*, found int"),
        ([({"en": "a"}, "x")], r"row 1: the text \(column 'text'\) is a dict; expected one text"),
        ([{"title": ["a", "b"], "label": "x"}], r"row 1: the text \(column 'title'\) is a list"),
        ([(b"\xff", "x")], "row 1: the text .* is bytes that are not UTF-8"),
        ([{"body": "a", "label": "x"}], "it has: 'body', 'label'; name it with .data.text_column"),
        ([{"Text": "a", "TEXT": "b", "label": "x"}], "'Text' and 'TEXT' both look like the text; name one with"),
    ],
)  # fmt: skip
def test_what_is_no_rows_is_one_sentence(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(source)


def test_two_columns_of_one_name_are_refused_in_memory_too(tmp_path: Path) -> None:
    import pandas
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(DataError, match="the data frame: columns 1 and 3 are both named 'text'"):
        read_examples(pandas.DataFrame([["a", "x", "b"]], columns=["text", "label", "text"]))
    table = pyarrow.table([["a"], ["x"], ["b"]], names=["text", "label", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: columns 1 and 3 are both named 'text'"):
        read_examples(tmp_path / "a.parquet")


def test_a_parquet_text_that_is_no_utf_8_is_one_sentence(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.array([b"a", b"\xff"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": text, "label": ["x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"is not a readable Parquet file: .*utf-8"):
        read_examples(tmp_path / "a.parquet")


def test_columns_without_names_are_called_by_their_numbers() -> None:
    assert read_examples(frame().set_axis([0, 1], axis="columns"), "0", "1") == ROWS
    assert read_examples(ROWS, "body", "topic") == ROWS  # pairs have no columns that could be named


@pytest.fixture
def ids() -> Any:
    """A dataset of class ids with names, two rows of it without a class."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["b", "a"])})
    return datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, -1, None, 1, 0]}, features=features)


def test_class_ids_take_their_names_and_the_mark_for_none_is_no_class(ids: Any, tmp_path: Path) -> None:
    ids.to_parquet(tmp_path / "a.parquet")
    ids.save_to_disk(tmp_path / "saved")
    expected = [ROWS[n] for n in (0, 1, 4, 5)]
    for source in (ids, ids.to_iterable_dataset(), ids.data.table, tmp_path / "a.parquet", str(tmp_path / "saved")):
        with pytest.raises(DataError, match=r"2 rows \(3, 4\) without a label"):
            read_examples(source)
        assert read_examples(source, skip_incomplete=True) == expected


def test_splits_are_taken_aloud(ids: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import datasets

    part = ids.filter(lambda row: row["label"] in (0, 1))
    other = part.map(lambda row: {"text": row["text"] + " again"})
    whole = datasets.DatasetDict(train=part, dev=other, unsupervised=ids)
    whole.save_to_disk(tmp_path / "saved")
    for source in (whole, tmp_path / "saved"):
        with caplog.at_level(logging.INFO):
            task = load_task(source)
        assert (len(task.train), len(task.validation), len(task.test)) == (4, 4, 0)
        assert "taking the splits train, dev; leaving unsupervised" in caplog.text
    assert with_splits(whole, ROWS, ROWS)[1:] == (ROWS, ROWS)
    with pytest.raises(DataError, match="splits 'test', and none of them is 'train'"):
        load_task(datasets.DatasetDict(test=part))
    with pytest.raises(DataError, match="is a folder, and none that save_to_disk of datasets wrote; expected a file"):
        load_task(tmp_path)
