"""Text where it comes into the program and goes out of it: broken Unicode, consoles, pipes, lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgkd_agent.cli.terminal import CLOSED_PIPE
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import pgkd

NAMES = ["Zażółć gęślą jaźń", "荷物が届きません", "an apple"]
LINES = "an apple\u2028and a plum\r\ncow\n\n   \nrain\x85hail"


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_output_is_utf_8_whatever_the_console_says(model: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(NAMES), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pgkd_agent", "classify", str(model), "-"],
        input=(tmp_path / "a.txt").read_bytes(), capture_output=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.decode().splitlines()] == NAMES


@pytest.mark.parametrize("command", [["datasets"], ["--help"], ["schema", "config"], ["prompts", "list"]])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "pgkd_agent", *command], stdout=writing, stderr=subprocess.PIPE, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_to_a_full_disk_is_an_error_of_the_disk() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pgkd_agent", "datasets"], stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    assert done.returncode == 5
    assert b"error: the output cannot be written: No space left" in done.stderr and b"Traceback" not in done.stderr


def test_a_command_without_an_output_does_its_work(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m pgkd_agent datasets >&-"], capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_line_has_its_answer_in_its_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(LINES.encode())
    from_file = pgkd("classify", model, tmp_path / "a.txt")
    rows = [json.loads(line) for line in from_file.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["an apple\u2028and a plum", "cow", "", "   ", "rain\x85hail"]
    assert [row["label"] is None for row in rows] == [False, False, True, True, False]
    assert rows[2] == {"text": "", "label": None, "confidence": None}
    assert "texts that are blank, and get no label (null): 2" in from_file.stderr
    assert pgkd("classify", model, "-", stdin=LINES).stdout == from_file.stdout


def test_half_a_surrogate_pair_is_repaired_wherever_text_comes_in(
    model: Path, tiny_student: Path, tmp_path: Path, classifier: StudentClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps({"text": f"an apple \ud83d {n}", "label": ["fruit", "tools"][n % 2]}) for n in range(12)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    classified = pgkd("classify", model, tmp_path / "a.jsonl")
    assert json.loads(classified.stdout.splitlines()[0])["text"] == "an apple \ufffd 0"
    evaluated = pgkd("evaluate", model, tmp_path / "a.jsonl")
    trained = pgkd(
        "train", "--train", tmp_path / "a.jsonl", "--student", tiny_student, "--set", "student.max_epochs=1",
        "--out", tmp_path / "run",
    )  # fmt: skip
    for ended in (classified, evaluated, trained):
        assert ended.returncode == 0 and "repaired 12 texts with half a surrogate pair" in " ".join(
            ended.stderr.split()
        )
    assert classifier.classify(["an apple \ud83d"]) == classifier.classify(["an apple \ufffd"])
    assert "repaired 1 text with half a surrogate pair" in caplog.text
