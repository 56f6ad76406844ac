"""`pgkd classify --out`, `--top` and `--all`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from pgkd_agent.cli import classify as command
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import failure, serve

ROWS = [{"id": str(number), "text": row.text, "label": row.label} for number, row in enumerate(sentences(3, 4))]
ROWS[5]["text"] = "  "


class StandIn:
    """A method that answers so many calls; then someone ends the process."""

    def __init__(self, method: Callable[..., Any], calls: int) -> None:
        self._method = method
        self._left = calls

    def __get__(self, classifier: StudentClassifier, _kind: type) -> Callable[..., Any]:
        def answer(texts: list[str]) -> Any:
            if not self._left:
                raise SystemExit(130)
            self._left -= 1
            return self._method(classifier, texts)

        return answer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with (tmp_path / "new.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    return tmp_path / "new.csv"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_keeps_the_columns_and_places_of_the_input(
    model: Path, file: Path, classifier: StudentClassifier
) -> None:
    done = pgkd("classify", model, file, "--out", file.with_name("out.csv"))
    assert done.returncode == 0 and done.stdout == "" and "out.csv: 12 rows" in " ".join(done.stderr.split())
    rows = read(file.with_name("out.csv"))
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    expected = classifier.classify([row["text"] for row in ROWS])
    for number, (row, one) in enumerate(zip(rows, expected, strict=True)):
        assert row["predicted_label"] == ("" if number == 5 else one.label)
        assert number == 5 or float(row["confidence"]) == pytest.approx(one.confidence, abs=1e-5)
    assert list(rows[0]) == ["id", "text", "label", "predicted_label", "confidence"]
    assert pgkd("classify", model, file, "--out", file.with_name("out.csv")).returncode == 2, "it is there"


def test_probabilities_are_printed_where_they_are_asked_for(model: Path, file: Path) -> None:
    def first(*options: str) -> dict[str, object]:
        return dict(json.loads(pgkd("classify", model, file, *options).stdout.splitlines()[0]))

    assert set(first()) == {"text", "label", "confidence"}
    two, every = first("--top", "2")["probabilities"], first("--all")["probabilities"]
    assert isinstance(two, dict) and isinstance(every, dict)
    assert list(two.items()) == list(every.items())[:2] and {*every} == {*TOPICS}
    assert list(every.values()) == sorted(every.values(), reverse=True)
    assert pgkd("classify", model, file, "--top", "2", "--all").returncode == 2


def test_a_table_is_whole_where_the_llm_could_not_be_asked(
    model: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    out, teacher = file.with_name("out.parquet"), ("--teacher", "openai:m", "--min-confidence", "1")
    with serve(lambda _call, _body: failure(401, "no such key")) as server:
        done = pgkd("classify", model, file, "--out", out, *teacher, "--base-url", server.base_url)
    assert done.returncode == 1, done.stderr
    rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert {row["source"] for row in rows} == {"student", None} and rows[0]["problem"] and rows[5]["problem"] is None


def test_what_the_input_calls_its_columns_is_looked_at_before_a_call_is_paid(
    model: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    file.write_text(file.read_text(encoding="utf-8").replace("id,text,label", "id,text,source", 1), encoding="utf-8")
    with serve(lambda _call, _body: failure(401, "no such key")) as server:
        teacher = ("--teacher", "openai:m", "--min-confidence", "1", "--base-url", server.base_url)
        done = pgkd("classify", model, file, "--out", file.with_name("out.csv"), *teacher)
    assert done.returncode == 2 and "has a column 'source'" in " ".join(done.stderr.split()) and not server.requests


def test_a_blank_text_may_come_first_and_the_size_of_a_batch_may_change(
    model: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("id,text\n0,\n" + "".join(f"{number},apple {number}\n" for number in range(1, 9)), encoding="utf-8")
    out = file.with_name("out.csv")
    with monkeypatch.context() as patch:
        patch.setattr(command, "CHUNK", 5)
        patch.setattr(StudentClassifier, "classify", StandIn(StudentClassifier.classify, calls=1))
        assert pgkd("classify", model, file, "--out", out, "--top", "2", "--batch-size", "64").returncode == 130
    done = pgkd("classify", model, file, "--out", out, "--top", "2", "--batch-size", "8")
    assert done.returncode == 0 and "going on after 5 rows" in done.stderr, done.stderr
    assert [row["probabilities"] == "" for row in read(out)] == [True, *[False] * 8]


def test_a_stopped_table_is_gone_on_with_by_the_same_command(
    model: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = file.with_name("out.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(command, "CHUNK", 5)
        patch.setattr(StudentClassifier, "classify", StandIn(StudentClassifier.classify, calls=1))
        assert pgkd("classify", model, file, "--out", out).returncode == 130
    other = pgkd("classify", model, file, "--out", out, "--top", "1")
    assert other.returncode == 2 and "another input, model or options" in " ".join(other.stderr.split())
    done = pgkd("classify", model, file, "--out", out)
    assert done.returncode == 0 and "going on after 5 rows" in done.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [row["id"] for row in ROWS]
    assert [path.name for path in out.parent.glob("out*")] == ["out.jsonl"]
    assert pgkd("classify", model, "-", "--out", file.with_name("b.csv"), stdin="a\n").returncode == 2
