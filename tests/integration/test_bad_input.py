"""One table of what can be wrong with what a person gives: the input, the exit code and the message."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration import command_line
from tests.integration.conftest import sentences, tiny_config
from tests.integration.loopback import Answer, serve_json
from tests.integration.openai_server import failure

ROWS = [(row.text, row.label) for row in sentences(6, 0)]


def jsonl(rows: Any = ROWS) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def table(rows: Any = ROWS, header: str = "text,label") -> str:
    return "\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "good.jsonl").write_text(jsonl(), encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "not.gguf").write_text("not a model", encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    """Standard output and error, white space made one blank: the terminal's width does not matter."""


@pytest.fixture
def pgkd(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    monkeypatch.setenv("PGKD_HOME", "no-models-here")

    def call(*arguments: object) -> Ended:
        done = command_line.pgkd(*arguments)
        return Ended(done.returncode, " ".join((done.stdout + done.stderr).split()))

    return call


@pytest.fixture
def no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*_args: object, **_kwargs: object) -> None:
        pytest.fail("trained before the mistake was found")

    monkeypatch.setattr("pgkd_agent.student.student.fit", fit)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# (name of the file with the training rows, its content, part of the message); exit code 2
BAD_ROWS: list[tuple[str, str | bytes, str]] = [
    ("empty.csv", "", "holds no rows"),
    ("header.csv", "text,label\n", "holds no rows"),
    ("empty.jsonl", "\n\n", "holds no rows"),
    ("no-text.csv", table(header="body,label"), "no column looks like the text; it has: 'body', 'label'; name it with"),
    ("no-label.csv", table(header="text,mark"), "no column looks like the label; it has: 'text', 'mark'"),
    ("format.xlsx", "x", "unknown format '.xlsx'; expected one of .csv, .tsv, .jsonl"),
    ("broken.jsonl", jsonl() + '{"text": \n', "line 25 is not JSON"),
    ("broken.csv", table() + '"open,fruit\n', "not valid CSV"),
    ("fields.csv", table() + "a,b,c\n", "row 25 has more fields than the header"),
    (
        "unlabelled.csv",
        table([*ROWS[:3], ("a", ""), ("b", ""), *ROWS[3:], ("c", "")]),
        "3 rows (4, 5, 27) without a label; fill in or remove them, or leave them out with the setting data.skip_",
    ),
    ("no-words.csv", table([*ROWS, ("  ", "fruit")]), "1 row (25) without a text"),
    ("null.jsonl", jsonl([*ROWS, (None, None)]), "1 row (25) without a text; 1 row (25) without a label"),
    ("one-class.jsonl", jsonl([("a", "x"), ("b", "x")]), "found 1 class, a classifier needs at least 2"),
    ("case.jsonl", jsonl([*ROWS, ("a pear", "Fruit")]), "white space only, or not at all: 'Fruit', 'fruit'"),
    ("spaces.jsonl", jsonl([*ROWS, ("a", "big tools"), ("b", "big  tools")]), "'big tools'; make them one"),
    ("nan.csv", table([*ROWS, ("a", "nan"), ("b", "nan")]), "'nan' looks like a missing value, in 2 rows (25, 26)"),
    ("na.csv", table([*ROWS, ("a", "NA")]), "label 'NA' looks like a missing value, in 1 row (25); correct"),
    ("none.jsonl", jsonl([*ROWS, ("a", "None")]), "if it is a class, name all classes with --labels"),
    ("nul.csv", table().replace("dog", "do\0g"), "a NUL byte; the file is binary or damaged"),
    ("utf16.csv", table().encode("utf-16-be"), "in UTF-16BE without a mark: save it as UTF-8 (iconv -f UTF-16BE -t"),
    ("cp1252.csv", table([*ROWS, ("café “noir”", "fruit")]).encode("cp1252"), "line 26: byte 0xe9 is not UTF-8"),
    ("cp1252.csv", table([*ROWS, ("naïve", "fruit")]).encode("cp1252"), "WINDOWS-1252: save it as UTF-8"),
    ("invalid.jsonl", jsonl().encode() + b'{"text": "\xff\x81", "label": "fruit"}\n', "line 25: byte 0xff is not"),
    ("lists.jsonl", jsonl([*ROWS, ("a", ["fruit", "tools"])]), "several labels a row (multi-label) are not"),
    ("lists.csv", table([*ROWS, ("a", "\"['fruit', 'tools']\"")]), "row 25: the label is a list"),
    ("objects.jsonl", jsonl([*ROWS, ("a", {"name": "x"})]), "row 25: the label is a dict"),
    ("not.parquet", "no table", "not a readable Parquet file"),
    ("two.jsonl", jsonl([("a", "x"), ("b", "y")]), "2 training and 0 validation rows are left; both are needed"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_ROWS, ids=[name for name, _, _ in BAD_ROWS])
@pytest.mark.usefixtures("no_fit")
def test_bad_rows(files: Path, pgkd: Any, tiny_student: Path, name: str, content: str | bytes, message: str) -> None:
    (files / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = contents(files)
    ended = pgkd("distill", "--train", name, "--student", tiny_student, "--teacher", "openai:m")
    assert (ended.code, message in ended.output) == (2, True), ended.output
    assert contents(files) == before


# (arguments after `pgkd distill`, exit code, part of the message)
BAD_ARGUMENTS: list[tuple[str, int, str]] = [
    ("--train nowhere.csv", 2, "no such file: nowhere.csv"),
    ("--train run", 2, "run is a folder, and none that save_to_disk of datasets wrote; expected a file (.csv"),
    ("--train good.jsonl --text-column body", 2, "no column 'body'; it has: 'text', 'label'"),
    ("", 2, "give either labelled rows (--train) or one of the paper's datasets (--dataset)"),
    ("--train good.jsonl --dataset imdb", 2, "give either labelled rows"),
    ("--dataset news", 2, "no dataset 'news'; there are: ag_news"),
    ("--dataset imdb --data-dir run", 2, "run does not hold imdb: expected aclImdb/train/pos"),
    ("--dataset imdb --data-dir nowhere", 2, "no such folder: nowhere"),
    ("--dataset amzn_reviews", 2, "no copy of amzn_reviews is known on the model hub; name a folder with --data-dir"),
    ("--train good.jsonl --test strange.jsonl", 2, "test: label 'fruits' (row 1, and 0 more rows)"),
    ("--train good.jsonl --labels few.json", 2, "train: label"),
    ("--train good.jsonl --labels good.jsonl", 2, "good.jsonl: unknown format '.jsonl'; expected .json, .yaml"),
    ("--train good.jsonl --out run", 2, "run exists already; name another run directory with --out, or remove it"),
    ("--train good.jsonl --prompt bold", 2, "no prompt 'bold'; pgkd variants: agent, attributes, contrastive"),
    ("--train good.jsonl --config nowhere.yaml", 2, "nowhere.yaml cannot be read"),
    ("--train good.jsonl --config good.jsonl", 2, "good.jsonl cannot be read"),
    ("--train good.jsonl --recipe best", 2, "unknown recipe 'best'; there are: default, paper"),
    ("--train good.jsonl --set student.learningrate=1", 2, "'student.learningrate' (closest: 'student.learning_rate')"),
    ("--train good.jsonl --set pgkd=big", 2, "pgkd: input should be"),
    ("--train good.jsonl --set student.name", 2, "expected key=value"),
    ("--train good.jsonl --set student.learning_rate=-1", 2, "student.learning_rate: input should be greater than 0"),
    ("--train good.jsonl --set student.max_length=2", 2, "student.max_length: input should be greater than"),
    ("--train good.jsonl --set data.validation_share=1", 2, "data.validation_share: input should be less than 1"),
    ("--train good.jsonl --set evidence.source=guess", 2, "evidence.source: input should be 'dynamics', 'history'"),
    ("--train good.jsonl --set guardrails.near_duplicate_ratio=101", 2, "less than or equal to 100"),
    ("--train good.jsonl --steps many", 2, "Invalid value for '--steps'"),
    ("--train good.jsonl --steps -1", 2, "pgkd.num_kd_steps: input should be greater than or equal to 0, found -1"),
    ("--train good.jsonl --rows 1", 2, "data.rows: input should be greater than or equal to 2, found 1"),
    ("--train good.jsonl --seed -1", 2, "seed: input should be greater than or equal to 0"),
    ("--train good.jsonl --set student.device=cuda:99", 2, "device 'cuda:99' is not usable here"),
    ("--train good.jsonl --set teacher.prices=few.json", 2, "few.json holds a list, expected a mapping"),
    ("--train good.jsonl --student ./nowhere", 2, "student './nowhere': no such folder"),
    ("--train good.jsonl --student run", 2, "run is no model folder"),
    ("--train good.jsonl --student nobody/no-model", 2, "nor to be had from the model hub"),
    ("--train good.jsonl --student minilm", 2, "run `pgkd models get minilm`"),
    ("--train good.jsonl --student students/no-pad", 2, "has no pad token, so texts cannot be batched"),
    ("--train good.jsonl --student students/vision", 2, "is a vit model, which has no sequence classifier"),
    ("--train good.jsonl --student students/torn", 2, "student 'students/torn' cannot be loaded"),
    ("--train good.jsonl --teacher gpt-4o", 2, "expected provider:model"),
    ("--train good.jsonl --teacher nobody:model", 2, "there is no provider 'nobody' (e.g. anthropic, azure_openai"),
    ("--train good.jsonl --dry-run --teacher opena:m", 2, "there is no provider 'opena' (closest: openai"),
    ("--train good.jsonl --dry-run --teacher gpt-4o", 2, "expected provider:model"),
    ("--train good.jsonl --dry-run --teacher mistralai:m", 2, "`pip install langchain-mistralai`"),
    ("--train good.jsonl --dry-run --teacher local:not.gguf", 2, "not.gguf is not a GGUF file"),
    ("--train good.jsonl --dry-run --teacher openai:m --base-url http://x/v1/v1", 2, "--base-url http://x/v1"),
    ("--train good.jsonl --dry-run --teacher openai:m", 0, "a run would end: teacher openai:m: no key"),
    ("--train good.jsonl --teacher mistralai:m", 2, "langchain-mistralai"),
    ("--train good.jsonl --teacher local:nowhere.gguf", 2, "teacher local:nowhere.gguf: no such file"),
    ("--train good.jsonl --teacher local:not.gguf", 2, "not.gguf is not a GGUF file"),
    ("--train good.jsonl --teacher local:smollm2", 2, "run `pgkd models get smollm2`"),
    ("--train good.jsonl --teacher openai:m", 3, "no key; set OPENAI_API_KEY, or name another server with --base-url"),
    ("--train good.jsonl --teacher openai:m --base-url http://127.0.0.1:9/v1", 3, "nothing listens there: start"),
    ("--train good.jsonl --teacher openai:m --base-url 127.0.0.1:9/v1", 2, "teacher.base_url is no address"),
    ("--train good.jsonl --teacher openai:m --base-url REFUSES", 3, "credentials missing or refused"),
    ("--train good.jsonl --teacher bedrock_converse:m", 3, "no AWS region; set AWS_REGION"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_ARGUMENTS, ids=[row[0] for row in BAD_ARGUMENTS])
@pytest.mark.usefixtures("no_fit")
def test_bad_arguments(
    files: Path,
    pgkd: Any,
    tiny_student: Path,
    bad_students: Path,
    refusing_server: str,
    arguments: str,
    code: int,
    message: str,
) -> None:
    (files / "strange.jsonl").write_text(jsonl([("a", "fruits")]), encoding="utf-8")
    (files / "few.json").write_text('["fruit", "tools"]', encoding="utf-8")
    (files / "students").symlink_to(bad_students)
    before = contents(files)
    words = arguments.replace("REFUSES", refusing_server).split()
    if "--student" not in words:
        words += ["--student", str(tiny_student)]
    ended = pgkd("distill", *words)
    assert (ended.code, message in ended.output) == (code, True), ended.output
    assert "Traceback" not in ended.output
    assert contents(files) == before


@pytest.fixture(scope="session")
def bad_students(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Path:
    """A decoder without pad token, a model of images, and weights that are torn off."""
    import shutil

    from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("bad-students")
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    tokenizer.pad_token = None
    GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        folder / "no-pad"
    )
    tokenizer.save_pretrained(folder / "no-pad")
    vision = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16)
    ViTModel(vision).save_pretrained(folder / "vision")
    shutil.copytree(tiny_student, folder / "torn")
    weights = folder / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


@pytest.fixture(scope="session")
def refusing_server() -> Iterator[str]:
    def refuse(_request: object) -> Answer:
        return failure(401, "Incorrect API key provided")

    with serve_json(refuse) as address:
        yield f"{address}/v1"


# (name of the file, its content, further arguments): odd, and fine; exit code 0
ODD_BUT_FINE: list[tuple[str, str | bytes, str]] = [
    ("bom.csv", b"\xef\xbb\xbf" + table().encode(), ""),
    ("crlf.csv", table().replace("\n", "\r\n"), ""),
    ("breaks.csv", table([(text.replace(" ", "\n"), label) for text, label in ROWS]), ""),
    ("numbers.csv", table([(text, len(label)) for text, label in ROWS]), ""),
    ("number.jsonl", jsonl([(text, float(len(label))) for text, label in ROWS]), ""),
    ("gaps.csv", table([*ROWS, ("a", ""), ("", "fruit")]), "--set data.skip_incomplete=true"),
    ("none.csv", table([*ROWS, *[(f"a car {n}", "None") for n in range(6)]]), "--labels with-none.json"),
    ("long.jsonl", jsonl([*ROWS, ("an apple " * 1_200_000, "fruit")]), ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "arguments"), ODD_BUT_FINE, ids=[row[0] for row in ODD_BUT_FINE])
def test_odd_rows_that_are_fine(
    files: Path, pgkd: Any, tiny_student: Path, name: str, content: str | bytes, arguments: str
) -> None:
    (files / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (files / "with-none.json").write_text('["fruit", "tools", "animals", "weather", "None"]')
    ended = pgkd(
        "train", "--train", name, "--out", "new", "--student", tiny_student, "--set", "student.max_epochs=1",
        *arguments.split(),
    )  # fmt: skip
    assert ended.code == 0, ended.output
    stored = (files / "new" / "history.jsonl").read_text(encoding="utf-8")
    assert len(stored.splitlines()) == {"none.csv": 24, "long.jsonl": 20}.get(name, 19)


def test_a_long_text_is_cut_in_the_prompt(files: Path, pgkd: Any, tiny_student: Path) -> None:
    rows = [(f"{text} {'apple ' * 2_000_000}", label) for text, label in ROWS[:1]] + ROWS[1:]
    (files / "long.jsonl").write_text(jsonl(rows), encoding="utf-8")
    for prompt in ("paper", "per_class"):
        ended = pgkd("distill", "--train", "long.jsonl", "--teacher", "openai:m", "--dry-run", "--prompt", prompt)
        assert ended.code == 0 and len(ended.output) < 20_000


def test_a_divergence_is_exit_4(files: Path, pgkd: Any, tiny_student: Path) -> None:
    ended = pgkd("train", "--train", "good.jsonl", "--student", tiny_student, "--set", "student.learning_rate=1e30")
    assert ended.code == 4 and "lower learning rate" in ended.output


def test_a_file_in_the_place_of_a_folder_is_exit_2(files: Path, pgkd: Any, tiny_student: Path) -> None:
    ended = pgkd("train", "--train", "good.jsonl", "--out", "good.jsonl/run", "--student", tiny_student)
    assert ended.code == 2 and "good.jsonl is a file, not a folder" in ended.output


@pytest.mark.parametrize(
    ("command", "closest"),
    [
        ("distill --resume runs/demoo", "runs/demo"),
        ("distill --resume demo", "runs/demo"),  # the folder left out
        ("report runs/demo/report.html", "runs/demo"),
        ("report runs/dmeo runs/demo", "runs/demo"),
        ("report runs", "runs/demo, runs/other"),
        ("report good.jsonl", "runs/demo, runs/other"),
        ("samples export runs/demoo --out a.csv", "runs/demo"),
        ("samples import runs/demo/models/best good.jsonl", "runs/demo"),
        ("push runs/demoo owner/name", "runs/demo/models/best"),
        ("classify runs/demoo/models/best -", "runs/demo/models/best"),
        ("evaluate demo/models/best good.jsonl", "runs/demo/models/best"),
    ],
)
def test_a_mistyped_run_is_exit_2_with_those_that_are_there(files: Path, pgkd: Any, command: str, closest: str) -> None:
    for name in ("demo", "other"):
        (files / "runs" / name / "models" / "best").mkdir(parents=True)
        (files / "runs" / name / "meta.json").write_text("{}")
        (files / "runs" / name / "report.html").write_text("")
    (files / "runs" / "demo" / "models" / "best" / "config.json").write_text("{}")
    ended = pgkd(*command.split())
    assert ended.code == 2 and ended.output.endswith(f"; there are: {closest}")


@pytest.mark.usefixtures("no_fit")
def test_too_little_space_is_exit_5_before_the_first_fit(
    files: Path, pgkd: Any, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("pgkd_agent.runs.directory.shutil.disk_usage", lambda _path: usage)
    ended = pgkd("train", "--train", "good.jsonl", "--out", "new", "--student", tiny_student)
    assert ended.code == 5 and "1 kB free, the run's models need" in ended.output
    assert not (files / "new").exists()


def test_a_disk_that_fills_up_is_exit_5_and_keeps_what_was_there(files: Path, tiny_student: Path) -> None:
    """A limit on the size of files stands in for the full disk: the operating system refuses the write."""
    limit = 60_000  # smaller than the weights
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pgkd_agent",
            "train",
            "--train",
            "good.jsonl",
            "--out",
            "new",
            "--student",
            tiny_student,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 5, done.stderr
    assert "the model cannot be written to new/models/last" in " ".join(done.stderr.split())
    assert (files / "new" / "config.yaml").is_file() and not list((files / "new" / "models").glob("*"))


def test_settings_out_of_range_are_also_refused_in_the_library(tiny_student: Path) -> None:
    with pytest.raises(Exception, match="greater than 0"):
        tiny_config(tiny_student, **{"student.learning_rate": 0})
