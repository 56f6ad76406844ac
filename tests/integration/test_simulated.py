"""`python -m evals.simulated` with the embeddings of a tiny student."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from evals.simulated.__main__ import main
from tests.integration.conftest import TOPICS, sentences


@pytest.fixture
def said(
    tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    rows = [json.dumps({"text": row.text, "label": row.label}) for row in sentences(60, 3)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "labels.json").write_text(json.dumps([*TOPICS]), encoding="utf-8")

    def run(*options: str) -> list[dict[str, Any]]:
        fixed = ["--data", str(tmp_path), "--frozen", "--rows", "20", "--judges", "60", "--steps", "2"]
        settings = ["--set", f"student.name={tiny_student}", "--set", "pgkd.patience_limit=9"]
        monkeypatch.setattr(sys, "argv", ["simulated", *fixed, *settings, *options])
        main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


@pytest.mark.parametrize("choice", ["margin", "drawn", "entropy", "weak"])
def test_a_teacher_that_knows_labels_texts_and_the_student_learns_from_them(said: Any, choice: str) -> None:
    check, plain, first, second = said("--accuracy", "1", "--labels", "40", "--choose", choice)
    assert "names 100% right" in check["gold"] and check["gain"]["mean"] > 0
    assert plain["accepted"] == 0 and first["right"]["teacher"] == second["right"]["teacher"] == 1
    assert 0 < first["accepted"] <= 40 and second["accuracy"] > plain["accuracy"]


def test_a_writer_asks_for_all_classes_alike_or_for_weak_ones_first(said: Any) -> None:
    for plan in ("even", "guided"):
        plain, *steps = said("--accuracy", "1", "--write", "20", "--plan", plan)
        assert [step["accepted"] > 10 for step in steps] == [True, True] and plain["plan"] == plan
