"""`pgkd classify --out`, `--top` and `--all`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from pgkd_agent.cli import classify as command
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import failure, serve

ROWS = [{"id": str(number), "text": row.text, "label": row.label} for number, row in enumerate(sentences(3, 4))]
ROWS[5]["text"] = "  "


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
    assert {row["source"] for row in rows} == {"student", None} and rows[0]["problem"]


def test_a_stopped_table_is_gone_on_with_by_the_same_command(
    model: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "CHUNK", 5)
    out, asked = file.with_name("out.jsonl"), list[str]()
    classify = StudentClassifier.classify

    def stops(self: StudentClassifier, texts: list[str], *more: object) -> object:
        if len(asked) >= 5:
            raise SystemExit(130)
        asked.extend(texts)
        return classify(self, texts)

    monkeypatch.setattr(StudentClassifier, "classify", stops)
    assert pgkd("classify", model, file, "--out", out).returncode == 130
    monkeypatch.setattr(StudentClassifier, "classify", classify)
    other = pgkd("classify", model, file, "--out", out, "--top", "1")
    assert other.returncode == 2 and "another input, model or options" in " ".join(other.stderr.split())
    done = pgkd("classify", model, file, "--out", out)
    assert done.returncode == 0 and "going on after 5 rows" in done.stderr
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [row["id"] for row in ROWS]
    assert [path.name for path in out.parent.glob("out*")] == ["out.jsonl"]
    assert pgkd("classify", model, "-", "--out", file.with_name("b.csv"), stdin="a\n").returncode == 2
