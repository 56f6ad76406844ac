"""The command line as a person uses it: a process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import completion, serve

REPLY = json.dumps({"samples": [{"text": "fresh mango and lemon from the market", "label": "fruit"}]})


def pgkd(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgkd_agent", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "160", "NO_COLOR": "1"},
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, per_class, seed in (("train", 12, 0), ("val", 5, 1), ("test", 6, 2)):
        rows = [json.dumps({"text": row.text, "label": row.label}) for row in sentences(per_class, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def quick(student: Path) -> list[str]:
    pairs = ["learning_rate=0.003", "max_epochs=4"]
    return ["--student", str(student), *(part for pair in pairs for part in ("--set", f"student.{pair}"))]


def test_distill_classify_and_evaluate(files: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(REPLY)) as server:
        done = pgkd(
            "distill", "--train", files / "train.jsonl", "--val", files / "val.jsonl", "--test", files / "test.jsonl",
            "--teacher", "openai:m", "--base-url", server.base_url, "--steps", "2", "--out", files / "run",
            *quick(tiny_student),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "plain student" in done.stdout and "macro f1" in done.stdout and "24 test rows" in done.stdout
    assert "rejected: prompt_copy 1" in done.stdout  # shown as evidence by then
    assert "step  1" in done.stderr

    model = files / "run" / "models" / "best"
    classified = pgkd("classify", model, "-", stdin="apple and plum\n\na cow\n")
    rows = [json.loads(line) for line in classified.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["apple and plum", "a cow"]
    assert set(rows[0]["probabilities"]) == set(TOPICS)
    assert rows[0]["label"] == max(rows[0]["probabilities"], key=rows[0]["probabilities"].get)

    evaluated = pgkd("evaluate", model, files / "test.jsonl", "--json")
    outcome = json.loads((files / "run" / "result.json").read_text())
    report = json.loads(evaluated.stdout)["report"]
    assert report["accuracy"] == pytest.approx(outcome["test"]["after"]["report"]["accuracy"])

    again = pgkd("train", "--train", files / "train.jsonl", "--out", files / "run", *quick(tiny_student))
    assert again.returncode == 2 and "exists already" in again.stderr


def test_train_needs_no_teacher(files: Path, tiny_student: Path) -> None:
    done = pgkd("train", "--train", files / "train.jsonl", "--out", files / "run", *quick(tiny_student))
    assert done.returncode == 0, done.stderr
    assert "no teacher" in done.stdout and (files / "run" / "models" / "best" / "config.json").is_file()


def test_dry_run_shows_the_prompt_and_calls_nothing(files: Path, tiny_student: Path) -> None:
    done = pgkd(
        "distill", "--train", files / "train.jsonl", "--teacher", "openai:m", "--base-url", "http://127.0.0.1:9",
        "--dry-run", "--prompt", "per_class", *quick(tiny_student),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "first of 7 requests in a KD step; 10 steps make at most 70 calls" in done.stdout
    assert not (files / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--train", "nowhere.csv"], 2, "no such file: nowhere.csv"),
        (["--train", "train.jsonl", "--set", "student.learningrate=1"], 2, "closest: 'student.learning_rate'"),
        (["--train", "train.jsonl", "--text-column", "body"], 2, "no column 'body'; it has: text, label"),
        (["--train", "train.jsonl", "--teacher", "openai:m"], 3, "OPENAI_API_KEY"),
        (["--train", "train.jsonl", "--teacher", "openai:m", "--base-url", "http://127.0.0.1:9/v1"], 3, "base URL"),
        (["--train", "train.jsonl", "--teacher", "local:smollm2"], 2, "pgkd models get smollm2"),
        (["--train", "train.jsonl", "--teacher", "openai:m", "--recipe", "best"], 2, "unknown recipe 'best'"),
    ],
)
def test_mistakes_end_with_their_code_and_one_readable_block(
    files: Path,
    tiny_student: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    message: str,
) -> None:
    monkeypatch.setenv("PGKD_HOME", str(files / "no-models"))
    done = pgkd("distill", *arguments, *quick(tiny_student))
    assert done.returncode == exit_code, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_divergence_is_exit_4(files: Path, tiny_student: Path) -> None:
    done = pgkd(
        "train", "--train", files / "train.jsonl", "--student", tiny_student, "--set", "student.learning_rate=1e30"
    )
    assert done.returncode == 4 and "lower learning rate" in " ".join(done.stderr.split())


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_refuses_is_exit_5(files: Path, tiny_student: Path) -> None:
    (files / "file").write_text("")
    done = pgkd("train", "--train", files / "train.jsonl", "--out", files / "file" / "run", *quick(tiny_student))
    assert done.returncode == 5 and "cannot be made" in " ".join(done.stderr.split())


def test_prompts_are_listed_shown_and_rendered(files: Path) -> None:
    listed = pgkd("prompts", "list").stdout
    assert "paper        one request per step" in listed and "per_class    one request per class" in listed
    assert "You are a Teacher model for a Student LM" in pgkd("prompts", "show", "paper").stdout
    rendered = pgkd("prompts", "render", "paper", "--train", files / "train.jsonl").stdout
    assert "please generate 32 training samples" in rendered


def test_help_names_the_commands_and_exit_codes() -> None:
    done = pgkd("--help")
    assert done.returncode == 0
    for word in ("distill", "train", "classify", "evaluate", "prompts", "models", "5 disk"):
        assert word in done.stdout
