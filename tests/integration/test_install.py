"""Wheel, sdist and editable install: each finds its prompts and runs a distillation outside the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.integration.openai_server import completion, serve

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples" / "support_desk"
REPLY = json.dumps(
    {"samples": [{"text": "My parcel says delivered, but the porch is bare.", "label": "missing_parcel"}]}
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, by the build backend itself, from a copy of what git knows."""
    out = tmp_path_factory.mktemp("dist")
    for target in ("wheel", "sdist"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)],
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
        )
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def environment(folder: Path, wheel: Path) -> Path:
    """A fresh environment with the wheel in it and the third-party packages of this one, but not the checkout."""
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Paths in a .pth file are added, but the .pth files there, such as that of an editable install, are not read.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def python(executable: Path, *arguments: object, cwd: Path) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(executable), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=cwd,
        env={**variables, "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_distils_the_example_outside_the_checkout(
    built: tuple[Path, Path], tmp_path: Path, tiny_student: Path
) -> None:
    executable = environment(tmp_path / "venv", built[0])
    where = python(executable, "-c", "import pgkd_agent; print(pgkd_agent.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    assert "zero_shot  paper" in python(executable, "-m", "pgkd_agent", "prompts", "list", cwd=tmp_path)
    with serve(lambda _call, _body: completion(REPLY)) as server:
        out = python(
            executable, "-m", "pgkd_agent", "distill",
            "--train", EXAMPLE / "train.jsonl", "--test", EXAMPLE / "test.jsonl", "--labels", EXAMPLE / "labels.json",
            "--teacher", "openai:m", "--base-url", server.base_url, "--steps", "1",
            "--student", tiny_student, "--set", "student.max_epochs=1", "--out", "run", cwd=tmp_path,
        )  # fmt: skip
    assert "168 test rows" in out
    assert (tmp_path / "run" / "models" / "best" / "model.safetensors").is_file()


def test_an_sdist_holds_what_the_wheel_is_made_of(built: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "again")],
        cwd=source,
        check=True,
        capture_output=True,
    )
    names = []
    for wheel in (built[0], next((tmp_path / "again").glob("*.whl"))):
        with zipfile.ZipFile(wheel) as archive:
            names.append({(item.filename, item.CRC) for item in archive.infolist() if "RECORD" not in item.filename})
    assert names[0] == names[1]
    assert (source / "tests" / "integration" / "test_install.py").is_file() and (source / "Makefile").is_file()
    files = {name for name, _ in names[0]}
    assert {
        "pgkd_agent/_resources/prompts/pgkd/attributes.yaml",
        "pgkd_agent/_resources/prompts/zero_shot/paper.j2",
        "pgkd_agent/teacher/calls/prices.yaml",
        "pgkd_agent/py.typed",
    } <= files
    assert not any(name.startswith(("tests/", "evals/")) for name in files)


def test_an_editable_install_reads_the_checkout() -> None:
    from pgkd_agent.files import resource_folder

    assert resource_folder("prompts") == CHECKOUT / "prompts"
