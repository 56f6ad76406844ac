"""Commands: their output and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pgkd_agent.runs.summary import RunResult
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import pgkd, pgkd_process
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import completion, serve

REPLY = json.dumps({"samples": [{"text": "fresh mango and lemon from the market", "label": "fruit"}]})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, per_class, seed in (("train", 12, 0), ("val", 5, 1), ("test", 6, 2)):
        rows = [json.dumps({"text": row.text, "label": row.label}) for row in sentences(per_class, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def quick(student: Path) -> list[str]:
    pairs = ["learning_rate=0.003", "max_epochs=4"]
    settings = [f"student.{pair}" for pair in pairs] + ["pgkd.pgkd_batch_size=1"]  # as many as the servers below write
    return ["--student", str(student), *(part for setting in settings for part in ("--set", setting))]


def test_distill_classify_and_evaluate(files: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(REPLY)) as server:
        done = pgkd_process(
            "distill", "--train", files / "train.jsonl", "--val", files / "val.jsonl", "--test", files / "test.jsonl",
            "--teacher", "openai:m", "--base-url", server.base_url, "--steps", "2", "--out", files / "run",
            *quick(tiny_student),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "plain student" in done.stdout and "macro F1" in done.stdout and "24 test rows" in done.stdout
    assert "rejected: prompt_copy 1" in done.stdout  # shown as evidence by then
    assert "step  1" in done.stderr and done.stdout.splitlines()[-1] == (
        f"Next: pgkd classify {files}/run FILE, or pgkd serve {files}/run"
    )
    phases = ["reading rows", "loading the student", "step 0/2: training the student on 48 rows", "24 test rows"]
    phases += [
        "step 1/2: asking the teacher",
        "step 1/2: checking 1 sample",
        "step 1/2: training the student on 49 rows",
    ]
    said = iter(done.stderr.splitlines())
    assert all(any(phase in line for line in said) for phase in phases), done.stderr  # in this order

    model = files / "run" / "models" / "best"
    classified = pgkd_process("classify", model, "-", "--all", stdin="apple and plum\n\na cow\n")
    rows = [json.loads(line) for line in classified.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["apple and plum", "", "a cow"]
    assert set(rows[0]["probabilities"]) == set(TOPICS)
    assert rows[0]["label"] == max(rows[0]["probabilities"], key=rows[0]["probabilities"].get)

    evaluated = pgkd("evaluate", model, files / "test.jsonl", "--json")
    outcome = json.loads((files / "run" / "result.json").read_text())
    report = json.loads(evaluated.stdout)["report"]
    assert report["accuracy"] == pytest.approx(outcome["test"]["after"]["report"]["accuracy"])
    calibration = outcome["calibration"]
    assert json.loads(evaluated.stdout)["calibration_error"] == pytest.approx(calibration["test"]["after"], abs=1e-4)
    assert json.loads((model / "calibration.json").read_text()) == calibration
    plain = json.loads(pgkd("classify", model, "-", stdin="apple and plum\n").stdout)["confidence"]
    uncalibrated = StudentClassifier.load(model, calibrated=False).invoke("apple and plum").confidence
    assert calibration["temperature"] != 1 and plain != pytest.approx(uncalibrated, abs=1e-6)

    again = pgkd("train", "--train", files / "train.jsonl", "--out", files / "run", *quick(tiny_student))
    assert again.returncode == 2 and "exists already" in again.stderr


def test_quiet_says_results_only_and_json_is_for_programs(files: Path, tiny_student: Path) -> None:
    rows = ("--train", files / "train.jsonl", "--val", files / "val.jsonl", *quick(tiny_student))
    quiet = pgkd("-q", "train", *rows, "--out", "quiet")
    assert quiet.returncode == 0 and quiet.stderr == "" and "validation loss" in quiet.stdout
    for_programs = pgkd("train", *rows, "--out", "json", "--json")
    result = json.loads(for_programs.stdout)
    assert result.pop("run") == "json" and result.pop("model") == "json/models/best"
    assert result == json.loads((files / "json" / "result.json").read_text())
    assert TypeAdapter(RunResult).validate_python(result).calibration.rows > 0
    assert "step  0" in for_programs.stderr and "classes" in for_programs.stderr
    verbose = pgkd("-v", "train", *rows, "--out", "verbose")
    assert "INFO" in verbose.stderr and "INFO" not in for_programs.stderr


def test_base_url_is_the_server_of_every_teacher(files: Path, tiny_student: Path) -> None:
    config = files / "settings.yaml"
    config.write_text("teacher: {ensemble: [{spec: 'openai:b', base_url: 'http://127.0.0.1:9'}]}", encoding="utf-8")
    common = (
        "distill",
        "--train",
        files / "train.jsonl",
        "--steps",
        "2",
        *quick(tiny_student),
        "--teacher",
        "openai:a",
    )
    with serve(lambda _call, _body: completion(REPLY)) as server:
        for out, second in (("flags", ("--teacher", "openai:b")), ("file", ("--config", config))):
            done = pgkd(*common, *second, "--base-url", server.base_url, "--out", out)
            assert done.returncode == 0, done.stderr
            stored = yaml.safe_load((files / out / "config.yaml").read_text())["teacher"]
            assert [stored["base_url"], stored["ensemble"][0]["base_url"]] == [server.base_url] * 2
        assert [body["model"] for body in server.requests] == ["a", "b"] * 2


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        (["openai:a", "anthropic:b"], "of several providers (anthropic, openai)"),
        (["local:smollm2", "openai:a", "azure_openai:b"], "teacher.ensemble[].base_url"),
        (["local:smollm2"], "a local: teacher has no server"),
        (["local:smollm2", "local:other.gguf"], "a local: teacher has no server"),
        ([], "a local: teacher has no server"),  # the default is local
    ],
)
def test_base_url_needs_teachers_of_one_provider(files: Path, teachers: list[str], message: str) -> None:
    named = [part for teacher in teachers for part in ("--teacher", teacher)]
    address = ("--base-url", "http://127.0.0.1:9")
    done = pgkd("distill", "--train", files / "train.jsonl", *named, *address, "--dry-run")
    assert done.returncode == 2 and done.stdout == "" and not (files / "runs").exists()
    assert "error: --base-url" in done.stderr and message in " ".join(done.stderr.split())


def test_an_evaluation_of_a_local_teacher_has_no_server(files: Path) -> None:
    done = pgkd("evaluate", "--teacher", "local:smollm2", files / "test.jsonl", "--base-url", "http://127.0.0.1:9")
    assert done.returncode == 2 and "a local: teacher has no server" in " ".join(done.stderr.split())


def test_an_evaluation_of_a_teacher_has_no_engine(files: Path) -> None:
    command = ("evaluate", "--teacher", "local:smollm2", files / "test.jsonl")
    for given, named in (
        (("--engine", "auto"), "--engine"),
        (("--threads", 2, "--batch-size", 64), "--batch-size, --threads"),
        (("--device", "cpu", "--precision", "fp32"), "--device, --precision"),
    ):
        done = pgkd(*command, *given)
        assert done.returncode == 2 and f"{named}: only for a model" in " ".join(done.stderr.split())


def test_base_url_passes_over_local_teachers(files: Path) -> None:
    both = ("--teacher", "local:smollm2", "--teacher", "openai:a")
    common = ("distill", "--train", files / "train.jsonl", *both, "--dry-run", "--base-url")
    done = pgkd(*common, "http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    unset = pgkd(*common, "")  # as from a variable that is not set: would be the provider's own server
    assert unset.returncode == 2 and "--base-url is empty" in unset.stderr


def test_train_needs_no_teacher(files: Path, tiny_student: Path) -> None:
    done = pgkd("train", "--train", files / "train.jsonl", "--out", files / "run", *quick(tiny_student))
    assert done.returncode == 0, done.stderr
    assert "no teacher" in done.stdout and (files / "run" / "models" / "best" / "config.json").is_file()


def test_one_model_is_compared_with_nothing_and_one_epoch_is_one(files: Path, tiny_student: Path) -> None:
    rows = ("--train", files / "train.jsonl", "--test", files / "test.jsonl")
    done = pgkd("-v", "train", *rows, "--out", files / "run", *quick(tiny_student), "--set", "student.max_epochs=1")
    assert done.returncode == 0, done.stderr
    assert "plain student" in done.stdout and "macro F1" in done.stdout
    for comparison in ("returned model", "change", "95 % interval", "+0.000"):
        assert comparison not in done.stdout
    assert "teacher" not in done.stderr.partition("student on 48 rows")[2], "none was asked"
    assert "step 0: 1 epoch, rate" in done.stderr and "with temperature" in done.stderr


def test_dry_run_shows_the_prompt_and_calls_nothing(files: Path, tiny_student: Path) -> None:
    done = pgkd(
        "distill", "--train", files / "train.jsonl", "--teacher", "openai:m", "--base-url", "http://127.0.0.1:9",
        "--dry-run", "--prompt", "per_class", *quick(tiny_student), "--set", "pgkd.pgkd_batch_size=32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "first of 7 requests in a KD step; 10 steps make 70 calls, repetitions apart" in done.stdout
    assert "estimate: 70 calls" in done.stdout and not (files / "runs").exists()


def test_a_dry_run_counts_the_calls_that_verify(files: Path) -> None:
    base = ("distill", "--train", files / "train.jsonl", "--dry-run", "--teacher", "openai:m", "--steps", "3")
    shown = pgkd(*base, "--set", "guardrails.verify=true", "--set", "pgkd.pgkd_batch_size=8").stdout
    assert "3 steps make 3 calls, and up to 24 more to verify the samples, repetitions apart" in shown
    assert "estimate: 27 calls" in shown  # the two say the same


def test_a_dry_run_does_not_count_the_calls_of_an_agent(files: Path) -> None:
    base = ("distill", "--train", files / "train.jsonl", "--dry-run", "--teacher", "openai:m")
    agent = ("--set", "teacher.mode=agent", "--steps", "3")
    verify = ("--set", "guardrails.verify=true", "--set", "pgkd.pgkd_batch_size=8")
    for more, verifying in (((), "."), (verify, "; up to 24 calls verify the samples.")):
        done = pgkd(*base, *agent, *more)
        assert done.returncode == 0, done.stderr
        said = done.stdout.splitlines()[-2:]
        assert said[0].startswith(
            f"prompt 'agent', with which each of 3 steps begins (at most 12 tool calls){verifying} No"
        )
        assert said[1] == "estimate: none, how often an agent calls is up to the model; set a cap, e.g. --max-calls"


def test_prompts_are_listed_shown_and_rendered(files: Path) -> None:
    listed = [" ".join(line.split()) for line in pgkd("prompts", "list").stdout.splitlines()]
    for beginning in (
        "pgkd paper one request per step; uses classification_report",
        "pgkd per_class one request per class; uses",
        "pgkd contrastive one request per pair of classes; uses",
        "zero_shot paper one request per text; uses taxonomy, text",
    ):
        assert any(line.startswith(beginning) for line in listed), listed
    assert "Text-to-classifiy" in pgkd("prompts", "show", "paper", "--purpose", "zero_shot").stdout
    assert "You are a Teacher model for a Student LM" in pgkd("prompts", "show", "paper").stdout
    rendered = pgkd("prompts", "render", "paper", "--train", files / "train.jsonl").stdout
    assert "please generate 32 training samples" in rendered


def test_prompts_of_ones_own_are_listed_shown_rendered_and_checked(files: Path) -> None:
    own = files / "own" / "pgkd"
    own.mkdir(parents=True)
    (own / "paper.j2").write_text("Human:\nMy words: {{ num_samples }} of {{ taxonomy | length }}", encoding="utf-8")
    folder = ("--folder", files / "own")
    assert "My words" in pgkd("prompts", "show", "paper", *folder).stdout
    rendered = pgkd("prompts", "render", "paper", "--train", files / "train.jsonl", *folder).stdout
    assert "My words: 32 of 4" in rendered
    clean = pgkd("prompts", "lint", *folder)
    assert clean.returncode == 0 and clean.stdout.endswith("templates, no errors\n")
    assert "pgkd paper: note: does not use task_description, few_shot" in clean.stdout
    assert "zero_shot paper: note: does not use task_description, few_shot\n" in clean.stdout
    assert pgkd("prompts", "lint", "--purpose", "zero_shot").stdout.endswith("2 templates, no errors\n")

    (own / "mine.j2").write_text("Human:\n{{ num_samples }} {{ target.name }}\n{{ few_shots }}", encoding="utf-8")
    bad = pgkd("prompts", "lint", *folder)
    assert bad.returncode == 2 and "found 1 error in the templates" in bad.stderr
    mistake = "error: line 3: unknown variable 'few_shots' (closest: 'few_shot')"
    assert [line for line in bad.stdout.splitlines() if "error" in line] == [f"pgkd mine: {mistake}"]
    assert f"{own / 'mine.j2'}: {mistake}" in pgkd("prompts", "lint", "paper", own / "mine.j2").stdout
    assert pgkd("prompts", "lint", "per_class", *folder).returncode == 0
    for name, source in (
        ("deep", "(" * 3000 + "1" + ")" * 3000),
        ("typo", "num_samples | jsn"),
        ("keys", "target.pop('x')"),
    ):
        (own / f"{name}.j2").write_text(f"Human:\n{{{{ {source} }}}}", encoding="utf-8")
    several = pgkd("prompts", "lint", "deep", "typo", "keys", "mine", *folder)
    assert several.returncode == 2 and "Traceback" not in several.stderr
    for message in (
        "deep: error: RecursionError",
        "typo: error: line 2: No filter named 'jsn'",
        "2: KeyError: 'x'",
        mistake,
    ):
        assert message in several.stdout  # one does not keep the next from being checked
    for name, message in (("deep", "RecursionError"), ("typo", "No filter named 'jsn'"), ("keys", "KeyError: 'x'")):
        broken = pgkd("prompts", "render", name, "--train", files / "train.jsonl", *folder)
        assert broken.returncode == 2 and f"error: prompt '{name}'" in broken.stderr and message in broken.stderr
    nowhere = pgkd("prompts", "lint", "--folder", files)
    assert nowhere.returncode == 2 and "holds no templates" in nowhere.stderr


def test_help_names_the_commands_and_exit_codes() -> None:
    done = pgkd_process("--help")
    assert done.returncode == 0
    for word in ("distill", "train", "classify", "evaluate", "datasets", "samples", "prompts", "models", "5 disk"):
        assert word in done.stdout


def test_a_teacher_is_evaluated_by_itself_over_the_labels_of_the_whole_file(files: Path) -> None:
    with serve(lambda _call, _body: completion('{"class_label": "Fruit"}')) as server:
        command = ("evaluate", "--teacher", "openai:m", "--base-url", server.base_url, files / "test.jsonl")
        done = pgkd(*command, "--rows", "5", "--seed", "1", "--out", "answers.jsonl")
        assert done.returncode == 0, done.stderr
        assert "5 rows, 4 classes, teacher openai:m, prompt 'paper', answers in answers.jsonl" in done.stderr
        assert "unresolved answers, counted as wrong: 0 of 5" in done.stdout and "over 5 rows" in done.stdout
        again = json.loads(pgkd(*command, "--rows", "5", "--seed", "1", "--out", "answers.jsonl", "--json").stdout)
        assert again["asked"] == 0 and again["report"]["n_rows"] == 5
    assert len(server.requests) == 5
    wrong = pgkd("evaluate", files / "test.jsonl")
    assert wrong.returncode == 2 and "pgkd evaluate MODEL FILE" in wrong.stderr


def test_samples_go_out_and_come_back(files: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(REPLY)) as server:
        pgkd(
            "distill", "--train", files / "train.jsonl", "--teacher", "openai:m", "--base-url", server.base_url,
            "--steps", "1", "--out", "run", *quick(tiny_student),
        )  # fmt: skip
    exported = pgkd("samples", "export", "run", "--out", "samples.csv")
    assert exported.stdout == "samples.csv: 1 accepted\n"
    done = pgkd("samples", "import", "run", "samples.csv", "--out", "again")
    assert done.returncode == 0, done.stderr
    assert "1 sample approved, 0 not" in done.stdout and ", samples as given," in done.stdout
    assert (files / "again" / "models" / "best" / "config.json").is_file()


def test_a_finished_run_is_resumed_without_a_call(files: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(REPLY)) as server:
        first = pgkd(
            "distill", "--train", files / "train.jsonl", "--teacher", "openai:m", "--base-url", server.base_url,
            "--steps", "1", "--out", "run", *quick(tiny_student),
        )  # fmt: skip
    again = pgkd("distill", "--resume", "run")
    assert again.returncode == 0, again.stderr
    assert "replaying what is stored" in again.stdout
    assert first.stdout.splitlines()[3] == again.stdout.splitlines()[4]  # the verdict
    mixed = pgkd("distill", "--resume", "run", "--seed", "0", "--set", "seed=2", "--dry-run")
    assert mixed.returncode == 2 and "leave out --dry-run, --seed, --set" in mixed.stderr


def test_datasets_and_schemas_are_printed() -> None:
    listed = pgkd("datasets").stdout
    assert "amzn_reviews: " in listed and "no copy known: --data-dir is needed" in listed
    assert "could not be tried" in listed
    assert json.loads(pgkd("schema", "config").stdout)["title"] == "PGKDConfig"


def test_a_cap_ends_a_run_which_goes_on_under_a_higher_one(files: Path, tiny_student: Path) -> None:
    with serve(lambda _call, _body: completion(REPLY)) as server:
        capped = pgkd(
            "distill", "--train", files / "train.jsonl", "--teacher", "openai:m", "--base-url", server.base_url,
            "--steps", "3", "--out", "run", "--max-calls", "1", "--max-minutes", "60", *quick(tiny_student),
        )  # fmt: skip
        assert capped.returncode == 0, capped.stderr
        assert "ended by a cap: budget.max_calls is 1: 1 were made" in capped.stdout
        assert "estimate: 3 calls" in capped.stderr and "with the first prompts: 3 calls" in capped.stderr
        again = pgkd("distill", "--resume", "run", "--max-calls", "3")
        assert again.returncode == 0, again.stderr
        assert "ended by a cap" not in again.stdout and "teacher: 3 requests" in again.stdout
        assert len(server.requests) == 3
    for beginning in (("--train", files / "train.jsonl"), ("--resume", "run")):
        refused = pgkd("distill", *beginning, "--max-calls", "-1")
        assert refused.returncode == 2 and "error: invalid settings: budget.max_calls" in refused.stderr


ENTRY = """
import os, sys
def show(when):
    print(when, os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
import pgkd_agent, pgkd_agent.cli
show("import")
sys.modules["pgkd_agent.cli.main"].app = lambda: show("command")
pgkd_agent.cli.main()
"""


@pytest.mark.parametrize(
    ("chosen", "before", "within"),
    [
        ({}, "None", "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, "None", "None"),
        ({"KMP_BLOCKTIME": "200"}, "None", "None"),
    ],
)
def test_the_command_alone_says_how_threads_wait_and_leaves_a_choice(
    chosen: dict[str, str], before: str, within: str
) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | chosen
    done = subprocess.run([sys.executable, "-c", ENTRY], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"import {before} False", f"command {within} False"]
