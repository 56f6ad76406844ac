"""What the documents say: every command in them is one that the program takes, and the list of options is current."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pgkd_agent.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("e*/**/*.md"), *ROOT.glob("examples/*.py")]
BLOCK = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)?(#[^)]+)?\)")
OPTIONAL = re.compile(r"\[(-[^\]]*)\]")


def commands() -> list[tuple[str, str]]:
    """(document, line) of every command line that begins with `pgkd`, continued lines joined."""
    found = []
    for document in DOCUMENTS:
        for block in BLOCK.findall(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.strip().startswith("pgkd "):
                    found.append((document.relative_to(ROOT).as_posix(), " ".join(line.split())))
    return found


def arguments_of(line: str) -> list[str]:
    """Without what stands for more options (`...`) and the brackets around optional ones."""
    words = shlex.split(OPTIONAL.sub(r"\1", line), comments=True)[1:]
    return [word for word in words if word != "..."]


@pytest.mark.parametrize(("document", "line"), commands(), ids=lambda text: text[:60])
def test_a_command_in_a_document_is_one_that_the_program_takes(document: str, line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = arguments_of(line)
    path = []
    while hasattr(command, "commands"):
        while words[0].startswith("-"):  # options of the program itself
            assert any(words[0] in parameter.opts for parameter in command.params), line
            words.pop(0)
        path.append(words[0])
        assert words[0] in command.commands, f"{document}: {line}: no command {' '.join(path)}"
        command = command.commands[words.pop(0)]
    command.make_context(path[-1], words)  # raises where an option or argument is wrong


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 30
    assert arguments_of("pgkd lint [VARIANT] [--folder FOLDER] a ...  # why") == [
        "lint",
        "[VARIANT]",
        "--folder",
        "FOLDER",
        "a",
    ]


def test_the_list_of_options_is_current(tmp_path: Path) -> None:
    made = tmp_path / "cli.md"
    generate = [sys.executable, "-m", "typer", "pgkd_agent.cli.main", "utils", "docs", "--name", "pgkd"]
    subprocess.run([*generate, "--output", str(made)], check=True, capture_output=True, cwd=ROOT)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), "run `make docs`"
    assert "* `--steps <int>`: Most KD steps.  [default: 10]" in made.read_text(encoding="utf-8").replace("(10)", "10")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), f"{document.name} links to {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {slug(heading) for heading in headings}, f"{document.name} links to {target}{anchor}"


def slug(heading: str) -> str:
    """As GitHub makes one."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
