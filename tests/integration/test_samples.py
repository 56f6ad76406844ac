"""Samples out of a run, through a person's hands, and back in."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent import distill
from pgkd_agent.data import read_records
from pgkd_agent.errors import ConfigError, DataError, StorageError
from pgkd_agent.pipeline import run as run_task
from pgkd_agent.runs.samples import COLUMNS, export_samples, prepare_retraining
from pgkd_agent.runs.stored import read_run
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.test_distill import FIRST, SECOND

TRAIN, VALIDATION, TEST = sentences(12, 0), sentences(5, 1), sentences(6, 2)


@pytest.fixture(scope="module")
def run(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps: two samples accepted and two rejected, then two accepted and one rejected."""
    folder = tmp_path_factory.mktemp("samples") / "run"
    labels = {name: f"about {name}" for name in TOPICS}
    config = tiny_config(tiny_student).changed({"budget.max_minutes": 60})
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        distill(TRAIN, VALIDATION, TEST, labels, teacher=teacher, config=config, out=folder)
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_sample_comes_out_with_its_origin(run: Path, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"samples{suffix}"
    assert export_samples(run, target) == {"accepted": 4, "rejected": 3}
    rows = read_records(target)
    assert list(rows[0]) == list(COLUMNS)
    steps = [f"{row['kd_step']} {row['status']}" for row in rows]
    assert steps == ["1 accepted"] * 2 + ["1 rejected"] * 2 + ["2 accepted"] * 2 + ["2 rejected"]
    by_text = {row["text"]: row for row in rows}
    assert by_text["a spaceship on mars"]["rule"] == "label"
    assert by_text["a spaceship on mars"]["reason"] == "'space' is not in the taxonomy"
    assert by_text["hail, then thunder all night"]["label"] == "weather"
    assert {row["teacher"] for row in rows} == {"ScriptedChatModel"} and rows[0]["prompt"].startswith("paper ")
    with pytest.raises(ConfigError, match="exists already"):
        export_samples(run, target)


def test_a_folder_is_a_dataset_as_the_hub_has_them(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export_samples(run, tmp_path / "hub")
    loaded = datasets.load_dataset(str(tmp_path / "hub"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "rejected": 3}
    assert loaded["train"][1] == {
        **loaded["train"][1], "text": "pass me that wrench and the pliers", "label": "tools", "status": "accepted",
    }  # fmt: skip
    assert "synthetic" in (tmp_path / "hub" / "README.md").read_text(encoding="utf-8")


def edited(run: Path, tmp_path: Path, change: Any) -> Path:
    """The exported CSV after a person changed its rows in place."""
    export_samples(run, tmp_path / "samples.csv")
    rows = [dict(row) for row in read_records(tmp_path / "samples.csv")]
    change(rows)
    target = tmp_path / "reviewed.csv"
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return target


def review(rows: list[dict[str, Any]]) -> None:
    by_text = {row["text"]: row for row in rows}
    by_text["pass me that wrench and the pliers"]["status"] = "rejected"
    by_text["a spaceship on mars"] |= {"status": "Accepted", "label": "Weather", "text": "a dust storm on mars"}
    by_text["hail, then thunder all night"]["text"] = "hail, and after it thunder\nall night"
    rows.append({"text": VALIDATION[0].text, "label": VALIDATION[0].label, "status": "accepted"})


def test_what_was_approved_is_trained_on_beside_the_plain_student(run: Path, tmp_path: Path) -> None:
    retraining = prepare_retraining(run, edited(run, tmp_path, review))
    assert retraining.not_approved == 3 and len(retraining.teacher.samples) == 5
    assert retraining.config.student.soft_labels == 0.0  # a person has approved the labels
    assert retraining.config.budget.max_minutes is None and not retraining.config.guardrails.verify  # no LLM is asked
    result = run_task(retraining.stored.task, retraining.config, retraining.teacher, tmp_path / "again")
    added = [(row.text, row.label) for row in result.training.history.rows[len(TRAIN) :]]
    assert ("a dust storm on mars", "weather") in added
    assert ("hail, and after it thunder\nall night", "weather") in added
    assert len(added) == 4 and result.training.steps[1].rejected == {"held_out": 1}  # a person may err, too
    first = json.loads((run / "result.json").read_text())
    assert result.summary.test is not None
    assert result.summary.test.before.loss == pytest.approx(first["test"]["before"]["loss"])
    assert read_run(tmp_path / "again").meta["teacher"].endswith("reviewed.csv")
    again = Counter(row["status"] for row in read_records_of(tmp_path / "again", tmp_path / "second.jsonl"))
    assert again == {"accepted": 4, "rejected": 1}


def read_records_of(run: Path, target: Path) -> list[Any]:
    export_samples(run, target)
    return read_records(target)


def test_rows_without_a_status_are_all_approved(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "plums and pears", "label": "fruit"}\n', encoding="utf-8")
    assert len(prepare_retraining(run, tmp_path / "mine.jsonl").teacher.samples) == 1


def test_mistakes_in_a_review_are_named(run: Path, tmp_path: Path) -> None:
    def unknown_label(rows: list[dict[str, Any]]) -> None:
        rows[1]["label"] = "toolz"

    with pytest.raises(DataError, match=r"label 'toolz' is not in the taxonomy of .*run, in 1 row \(2\); correct"):
        prepare_retraining(run, edited(run, tmp_path, unknown_label))
    (tmp_path / "none.jsonl").write_text('{"text": "a", "label": "fruit", "status": "rejected"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="none of its 1 rows has the status 'accepted'"):
        prepare_retraining(run, tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="is no run directory"):
        prepare_retraining(tmp_path, tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"unknown format '\.xlsx'"):
        export_samples(run, tmp_path / "a.xlsx")


def test_a_run_is_read_back_as_it_was(run: Path, tiny_student: Path) -> None:
    stored = read_run(run)
    assert stored.task.train == tuple(TRAIN) and stored.task.test == tuple(TEST)
    assert stored.task.validation == tuple(VALIDATION)
    assert [label.description for label in stored.task.taxonomy] == [f"about {name}" for name in TOPICS]
    assert stored.config.student.name == str(tiny_student) and stored.config.seed == 1


def test_a_damaged_run_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "history.jsonl").write_text('{"text": 1\n', encoding="utf-8")
    with pytest.raises(StorageError, match=r"history\.jsonl is not what was written"):
        read_run(tmp_path / "copy")
    (tmp_path / "copy" / "meta.json").write_text('{"format": 4}', encoding="utf-8")
    (tmp_path / "copy" / "history.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "copy" / "checksums.jsonl").unlink()
    with pytest.raises(StorageError, match="is damaged: KeyError"):
        read_run(tmp_path / "copy")


def test_a_formula_is_made_safe_for_spreadsheets_and_read_back_equal(run: Path, tmp_path: Path) -> None:
    formulas = [
        "=1+1 apples",
        "+49 apples",
        "-20 % on plums",
        "@fruit shop",
        "'=quoted plum",
        "'tis a plum",
        "\uff1da pear",
    ]
    shutil.copytree(run, tmp_path / "copy")
    with (tmp_path / "copy" / "history.jsonl").open("a", encoding="utf-8") as file:
        for text in formulas:
            row = {"text": text, "label": "fruit", "kd_step": 2, "request_index": 0, "source": "written"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    export_samples(tmp_path / "copy", tmp_path / "a.csv")
    cells = [row["text"] for row in read_records(tmp_path / "a.csv")]
    assert (
        not [cell for cell in cells if cell[0] in "=+-@\uff1d\t\r"]
        and "'=1+1 apples" in cells
        and "'tis a plum" in cells
    )
    for name in ("a.csv", "a.jsonl"):
        if name != "a.csv":
            export_samples(tmp_path / "copy", tmp_path / name)
        approved = [sample.text for sample in prepare_retraining(run, tmp_path / name).teacher.samples]
        assert set(formulas) <= set(approved)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("plums,fruit,ok", r"status 'ok', in 1 row \(3\); expected 'accepted' or 'rejected'"),
        ("plums,frut,accepted", r"label 'frut' is not in the taxonomy of .*, in 1 row \(3\); correct"),
        (",fruit,Accepted", r"1 row \(3\) without a text; fill them in, or give them the status 'rejected'"),
    ],
)
def test_rows_of_a_review_are_numbered_as_in_the_file(run: Path, tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,label,status\nrain,weather,rejected\nhail,weather,\n{row}\n")
    with pytest.raises(DataError, match=message):
        prepare_retraining(run, tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text,class\nrain,weather\n")
    with pytest.raises(DataError, match="no column 'label'; it has: 'text', 'class'"):
        prepare_retraining(run, tmp_path / "b.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "folder"])
def test_an_export_is_there_whole_or_not_at_all(
    run: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / f"{name}.0123abcd.new").write_text("of a killed process")
    monkeypatch.setattr("os.replace", full)  # all of it was written by then
    with pytest.raises(StorageError, match="No space left"):
        export_samples(run, tmp_path / name)
    assert not list(tmp_path.iterdir())
