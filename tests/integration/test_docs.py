"""What the documents say: every command in them is one that the program takes, and the list of options is current."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

import pgkd_agent
from docs import build_site
from pgkd_agent.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("e*/**/*.md")]
DOCUMENTS = [*PAGES, *ROOT.glob(".github/*.md"), *ROOT.glob("examples/*.py")]
BLOCK = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
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
    for target, anchor in LINK.findall(prose(document)):
        file = (document.parent / target).resolve() if target else document
        assert file.is_file(), f"{document.name} links to {target}; the site has files only, no folders"
        if anchor:
            assert anchor[1:] in anchors(file), f"{document.name} links to {target}{anchor}"


def prose(document: Path) -> str:
    """Without code, which has its own brackets and number signs."""
    return ANY_BLOCK.sub("", document.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings; those of one name are numbered."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        found.append(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return {name if number == 0 else f"{name}-{number}" for name in found for number in range(found.count(name))}


def test_the_site_has_every_page_once() -> None:
    config = tomllib.loads(build_site.CONFIG.read_text(encoding="utf-8"))
    listed = [*build_site.pages(config["project"]["nav"])]
    assert sorted(listed) == sorted(page.relative_to(ROOT).as_posix() for page in PAGES)


def test_the_page_of_the_api_has_every_public_name_once() -> None:
    listed = re.findall(
        r"^::: pgkd_agent\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(pgkd_agent.__all__)


def test_the_glossary_is_in_order() -> None:
    terms = re.findall(r"^\| \*\*(.*?)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(terms) > 50 and terms == sorted(terms, key=str.casefold)


def test_make_and_the_programs_of_evals_take_what_pages_give_them() -> None:
    """But for results, whose commands are those of their commits."""
    pages = [page for page in PAGES if page.parent.name != "results"]
    blocks = "".join(block for page in pages for block in BLOCK.findall(page.read_text(encoding="utf-8")))
    lines = [shlex.split(line, comments=True) for line in blocks.replace("\\\n", " ").splitlines()]
    made = [word for words in lines if words[:1] == ["make"] for word in words[1:] if "=" not in word]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(made) >= 5 and set(made) <= set(targets)
    programs = [words[2:] for words in lines if words[:2] == ["python", "-m"]]
    assert len(programs) >= 3
    for program, *given in programs:
        module = importlib.util.find_spec(program)
        assert module and module.origin, program
        source = Path(module.origin).with_name("__main__.py") if module.submodule_search_locations else module.origin
        taken = set(re.findall(r'"(--[a-z-]+)"', Path(source).read_text(encoding="utf-8")))
        assert {word for word in given if word.startswith("--")} <= taken, program
