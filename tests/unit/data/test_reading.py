"""Rows from files and memory, the taxonomy, seeded splits, and tasks that leak nothing."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.data import prepare_task, read_examples, read_taxonomy, read_texts
from pgkd_agent.data.splitting import sample_rows, stratified_split
from pgkd_agent.errors import DataError
from pgkd_agent.types import Example, Label

ROWS = [Example("one, two", "nan"), Example('a "quoted"\nbreak', "None"), Example("été", "NA")]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


CSV = 'text,label\n"one, two",nan\n"a ""quoted""\nbreak",None\nété,NA\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("bom.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("crlf.csv", CSV.replace("\n", "\r\n")),
        (
            "a.tsv",
            CSV.replace('"one, two",', "one, two\t").replace('k",', 'k"\t').replace("é,", "é\t").replace("t,l", "t\tl"),
        ),
        ("a.jsonl", "\n".join(json.dumps({"text": row.text, "label": row.label}) for row in ROWS) + "\n\n"),
    ],
)
def test_the_same_rows_from_every_format(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert read_examples(write(tmp_path / name, content)) == ROWS


def test_parquet_and_what_is_in_memory(tmp_path: Path) -> None:
    import pandas
    import pyarrow
    import pyarrow.parquet

    mappings = [{"text": row.text, "label": row.label} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(mappings), tmp_path / "a.parquet")
    pairs = [(row.text, row.label) for row in ROWS]
    for source in (tmp_path / "a.parquet", mappings, pairs, ROWS, iter(mappings), pandas.DataFrame(mappings)):
        assert read_examples(source) == ROWS


def test_numbers_are_labels_and_other_column_names_are_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "a.csv", "id,Utterance,Intent\n1,hello there,3\n")
    with caplog.at_level(logging.INFO):
        assert read_examples(file) == [Example("hello there", "3")]
    assert "taking column 'Utterance' as the text" in caplog.text
    assert "taking column 'Intent' as the label" in caplog.text
    assert read_examples(file, "id", "Intent") == [Example("1", "3")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nhello,x\nworld,\n", r"1 row \(2\) without a label"),
        ("a.csv", "text,label\n  ,x\n", r"1 row \(1\) without a text"),
        (
            "a.csv",
            "text,label\na,b,c\n",
            r"row 1 has more fields than the header \(line 2: 3, not 2, separated by \',\'\)",
        ),
        ("a.csv", 'text,label\n"a,b\n', "not valid CSV"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "body,label\na,b\n", "no column looks like the text; it has: 'body', 'label'"),
        ("a.csv", b"text,label\ncaf\xe9,x\n", "not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "row 1: expected an object, found int"),
        ("a.jsonl", '{"text": "a", "label": ["b", "c"]}\n', "several labels"),
        ("a.jsonl", '{"text": "a", "label": null}\n', r"1 row \(1\) without a label"),
        ("a.parquet", "no parquet", "not a readable Parquet"),
        ("a.xlsx", "x", "unknown format '.xlsx'"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(write(tmp_path / name, content))


def test_incomplete_rows_may_be_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "a.csv", "text,label\na,x\nb,\n,y\nc,y\n")
    assert read_examples(file, skip_incomplete=True) == [Example("a", "x"), Example("c", "y")]
    assert "left out 1 row (3) without a text; 1 row (2) without a label" in caplog.text


def test_only_the_first_of_many_row_numbers_are_named() -> None:
    rows: list[tuple[str, Any]] = [("a", None)] * 30
    with pytest.raises(DataError, match=r"30 rows \(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\.\) without a label"):
        read_examples(rows)


def test_labels_as_other_libraries_give_them() -> None:
    import numpy
    import pandas

    given = [3.0, numpy.int64(4), numpy.float64(5.0), 2.5, True, "[draft]", "[1"]
    assert [row.label for row in read_examples([("a", label) for label in given])] == [
        "3", "4", "5", "2.5", "True", "[draft]", "[1",
    ]  # fmt: skip
    for missing in (None, float("nan"), pandas.NA, pandas.NaT, numpy.float64("nan")):
        with pytest.raises(DataError, match="without a label"):
            read_examples([("a", missing)])
    for several in (["x"], numpy.array(["x", "y"]), "['x', 'y']", '["x"]', {"name": "x"}):
        with pytest.raises(DataError, match="multi-label"):
            read_examples([("a", several)])


def test_texts_without_labels(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "a.txt", "one\n\ntwo\n")) == ["one", "", "two"]
    assert read_texts(write(tmp_path / "a.csv", "text\none\ntwo\n")) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.json", '["b", "a"]'),
        ("l.json", '[{"name": "b"}, {"name": "a", "description": ""}]'),
        ("l.yaml", "- b\n- a\n"),
        ("l.txt", "b\n\na\n"),
    ],
)
def test_taxonomy_files_keep_their_order(tmp_path: Path, name: str, content: str) -> None:
    assert read_taxonomy(write(tmp_path / name, content)) == (Label("b"), Label("a"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"], "found 1 class"),
        (["Sports", "sports ", "b"], "white space only"),
        ([{"label": "a"}, "b"], "a label is a name or"),
    ],
)
def test_bad_taxonomies(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_taxonomy(labels)


def test_descriptions_may_be_a_mapping() -> None:
    assert read_taxonomy({"a": "the first", "b": None}) == (Label("a", "the first"), Label("b"))


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=60), st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 3)
)
@settings(max_examples=100)
def test_stratified_split(labels: list[str], share: float, seed: int) -> None:
    rows = [Example(f"row {n}", label) for n, label in enumerate(labels)]
    train, validation = stratified_split(rows, share, random.Random(seed))
    assert sorted([*train, *validation], key=lambda row: row.text) == sorted(rows, key=lambda row: row.text)
    there, held = Counter(labels), Counter(row.label for row in validation)
    wanted = round(len(rows) * share)
    assert len(validation) == min(wanted, len(validation))
    for label, count in there.items():
        assert held[label] < count  # every class keeps a training row, so a singleton is one
        assert held[label] >= min(int(count * share), count - 1)
        assert held[label] <= int(count * share) + 1
    if all(count > 1 for count in there.values()):
        assert len(validation) == wanted
    assert (train, validation) == stratified_split(rows, share, random.Random(seed))


def test_the_largest_remainders_get_what_is_missing() -> None:
    rows = [Example(str(n), label) for n, label in enumerate("a" * 14 + "b" * 12 + "c" * 4)]  # 2.8, 2.4, 0.8 of 0.2
    _, validation = stratified_split(rows, 0.2, random.Random(0))
    assert Counter(row.label for row in validation) == {"a": 3, "b": 2, "c": 1}


def test_a_drawn_sample_is_seeded_and_without_repetition() -> None:
    rows = [Example(str(n), "a") for n in range(50)]
    drawn = sample_rows(rows, 20, random.Random(1))
    assert len(set(drawn)) == 20 and drawn == sample_rows(rows, 20, random.Random(1))
    assert drawn != sample_rows(rows, 20, random.Random(2))


TRAIN = [Example(f"train text {n}", "ab"[n % 2]) for n in range(20)]


def test_train_validation_and_test_share_no_text(caplog: pytest.LogCaptureFixture) -> None:
    validation = [Example("Train  TEXT 3", "b"), Example("val one", "a"), Example("shared", "a")]
    test = [Example("train text 4 ", "a"), Example("SHARED", "a")]
    task = prepare_task(TRAIN, validation, test)
    assert {row.text for row in TRAIN} - {row.text for row in task.train} == {"train text 3", "train text 4"}
    assert [row.text for row in task.validation] == ["Train  TEXT 3", "val one"]
    assert task.test == tuple(test)
    assert "dropped 1 of 20 train rows whose text is also in test" in caplog.text
    assert "dropped 1 of 3 validation rows whose text is also in test" in caplog.text
    assert "dropped 1 of 19 train rows whose text is also in validation" in caplog.text


def test_repeated_rows_do_not_leak_through_the_split() -> None:
    task = prepare_task([Example(f"text {n % 10}", "ab"[n % 2]) for n in range(40)], seed=3)
    assert not {row.text for row in task.train} & {row.text for row in task.validation}


def test_the_taxonomy_is_that_of_the_whole_file_before_rows_are_drawn() -> None:
    rows = [*TRAIN, Example("the only one", "rare")]
    task = prepare_task(rows, rows=6, seed=1)
    assert [label.name for label in task.taxonomy] == ["a", "b", "rare"]
    assert len(task.train) + len(task.validation) == 6
    assert task == prepare_task(rows, rows=6, seed=1) != prepare_task(rows, rows=6, seed=2)


def test_mistakes_in_a_task(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"test: label 'sci' \(row 1, and 0 more rows\).*closest"):
        prepare_task(TRAIN, test=[Example("x", "sci")])
    with pytest.raises(DataError, match="both are needed"):
        prepare_task([Example("x", "a"), Example("y", "b")], validation=[Example("z", "a")], test=[Example("Z", "a")])
    prepare_task(TRAIN, rows=500)
    assert "asked for 500 rows, only 20 are there" in caplog.text


@pytest.mark.parametrize("labels", [[0, 1, -1, 1], ["0", "1", "-1", "1"], [0.0, 1.0, -1.0, 1.0]])
def test_minus_one_beside_class_ids_is_no_label(labels: list[Any]) -> None:
    rows = [(f"text {number}", label) for number, label in enumerate(labels)]
    with pytest.raises(DataError, match=r"1 row \(3\) without a label \(-1 beside class ids is none"):
        read_examples(rows)
    assert [row.label for row in read_examples(rows, skip_incomplete=True)] == ["0", "1", "1"]


@pytest.mark.parametrize("labels", [[1, -1, 1], ["-1", "x", "-1"]])
def test_minus_one_may_be_a_class(labels: list[Any]) -> None:
    read = read_examples([("a", label) for label in labels])
    assert [row.label for row in read] == [str(label) for label in labels]


def test_names_beside_class_ids_are_taken_aloud(caplog: pytest.LogCaptureFixture) -> None:
    names = ["delivery", "refund", "unlabelled"]
    rows = [{"text": f"text {n}", "label": n % 3 - (n % 3 == 2) * 3, "label_text": names[n % 3]} for n in range(6)]
    with caplog.at_level(logging.INFO):
        taken = read_examples(rows, skip_incomplete=True)
    assert [row.label for row in taken] == ["delivery", "refund"] * 2
    assert "column 'label' has class ids; taking their names from column 'label_text'" in caplog.text
    assert {row.label for row in read_examples(rows, label_column="label", skip_incomplete=True)} == {"0", "1"}
    other = [{**row, "label_text": f"note {n}"} for n, row in enumerate(rows)]  # no name of a class
    assert {row.label for row in read_examples(other, skip_incomplete=True)} == {"0", "1"}


def test_labels_that_are_numbers_are_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        prepare_task([Example(f"text {n}", "01"[n % 2]) for n in range(20)])
    assert caplog.text.count("the labels are numbers, and a teacher is told only those") == 1


def test_half_a_surrogate_pair_is_repaired_with_a_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(
        tmp_path / "a.jsonl", '{"text": "one \\ud83d", "label": "x"}\n{"text": "\\udc00", "label": "y\\ud800"}\n'
    )
    assert read_examples(file) == [Example("one \ufffd", "x"), Example("\ufffd", "y\ufffd")]
    assert read_texts(file) == ["one \ufffd", "\ufffd"]
    assert "repaired 3 texts with half" in caplog.text and "repaired 2 texts with half" in caplog.text
    assert read_taxonomy(["a\ud800", "b"])[0].name == "a\ufffd"


def test_a_first_line_that_is_a_row_is_recognised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "a.csv", "the door is broken,door\nthe lamp is dark,lamp\nthe door again,door\n")
    with pytest.raises(DataError, match="its first line looks like a row: put a line with names above it"):
        read_examples(file)
    read_examples(file, "the door is broken", "door")
    assert "column 'door' also has the value 'door'; is its first line a row?" in caplog.text
    write(file, "text,label\n" + file.read_text())  # as the message advises
    assert len(read_examples(file)) == 3


def test_text_or_label_without_a_visible_sign_is_none() -> None:
    with pytest.raises(DataError, match=r"1 row \(1\) without a text; 1 row \(2\) without a label"):
        read_examples([("\u200b \ufeff", "x"), ("a", "\u00ad")])
    assert read_examples([("👩\u200d🔧", "🔧")]) == [Example("👩\u200d🔧", "🔧")]
