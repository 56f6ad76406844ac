"""Groups of options: what typer sees of them, what a command gets, and the settings they make."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import pgkd_agent
from pgkd_agent.cli.groups import Group, as_options, grouped, option, refuse
from pgkd_agent.cli.main import app as pgkd
from pgkd_agent.cli.options import Caps, Reading, RunSources, Server, settings_of
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError


@dataclass(frozen=True)
class Fruit(Group):
    apples: int = option("How many.", default=2, min=1)
    sorts: list[str] | None = option("Which.", "--sort")


got: dict[str, Any] = {}
app = typer.Typer()


@app.command()
@grouped
def basket(context: typer.Context, *, first: str = "a", fruit: Fruit, apples_first: bool = False) -> None:
    refuse(context, "leave out {given}", *([Fruit] if first == "none" else []))
    got.update(first=first, fruit=fruit, apples_first=apples_first)


def groups(base: type[Group] = Group) -> Iterator[Any]:
    for group in base.__subclasses__():
        yield group
        yield from groups(group)


def test_a_command_gets_a_group_of_what_was_given_and_the_defaults() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["--first", "b", "--sort", "x", "--sort", "y", "--apples-first"]).exit_code == 0
    assert got == {"first": "b", "fruit": Fruit(2, ["x", "y"]), "apples_first": True}
    assert runner.invoke(app, ["--apples", "5"]).exit_code == 0
    assert got["fruit"] == Fruit(5, None)
    assert runner.invoke(app, ["--apples", "0"]).exit_code == 2
    help = runner.invoke(app, ["--help"], env={"COLUMNS": "160"}).output
    assert help.index("--first") < help.index("--apples") < help.index("--sort") < help.index("--apples-first")


def test_options_without_a_use_are_refused_by_the_names_that_people_write() -> None:
    assert CliRunner().invoke(app, ["--first", "none"]).exit_code == 0
    result = CliRunner().invoke(app, ["--first", "none", "--sort", "x", "--apples", "2"])  # 2 is the default
    assert isinstance(result.exception, ConfigError) and str(result.exception) == "leave out --apples, --sort"


def test_groups_of_a_command_have_no_option_in_common() -> None:
    def command(*, fruit: Fruit, apples: int = 1) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'apples'"):
        grouped(command)


def test_every_key_is_one_of_the_settings() -> None:
    keys = {each.metadata["key"] for group in groups() for each in fields(group)} - {None}
    assert {"seed", "teacher.prompt", "zero_shot.prompt", "budget.max_usd", "student.name"} <= keys
    config = PGKDConfig()
    for key in keys:
        *section, name = key.split(".")
        assert name in type(getattr(config, section[0]) if section else config).model_fields, key


def test_options_come_before_assignments_and_those_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\nrecipe: paper\nbudget: {max_calls: 1, max_tokens: 1, max_minutes: 1}", encoding="utf-8")
    sources = RunSources(file, ["budget.max_calls=2", "budget.max_tokens=2"])
    settings = settings_of(Reading(seed=4), sources, Caps(max_calls=3), more={"teacher.spec": None})
    assert settings.seed == 4 and settings.student.name == "bert-base-uncased"
    budget = settings.budget
    assert (budget.max_usd, budget.max_calls, budget.max_tokens, budget.max_minutes) == (None, 3, 2, 1)


def test_the_server_is_that_of_the_teachers_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("teacher: {spec: 'openai:a', ensemble: [{spec: 'local:smollm2'}]}", encoding="utf-8")
    teacher = settings_of(Server("http://127.0.0.1:9"), RunSources(file)).teacher
    assert teacher.base_url == "http://127.0.0.1:9" and teacher.ensemble[0].base_url is None


@pytest.mark.parametrize(
    ("option", "suggested"),
    [("--order", ""), ("--max-epochs", "--set student.max_epochs=VALUE"), ("--teachers", "--teacher"),
     ("--model", ""), ("--learning-rate", "--set student.learning_rate=VALUE"), ("--max-call", "--max-calls")],
)  # fmt: skip
def test_only_what_is_close_to_an_unknown_option_is_suggested(option: str, suggested: str) -> None:
    result = CliRunner().invoke(pgkd, ["distill", option], env={"COLUMNS": "160"})
    assert result.exit_code == 2 and f"No such option: {option}" in result.output
    assert suggested in result.output and (
        "Possible options" in result.output or "Did you mean" in result.output
    ) == bool(suggested)


def test_what_settings_say_has_no_option_of_its_own() -> None:
    result = CliRunner().invoke(pgkd, ["distill", "--no-cache"], env={"COLUMNS": "160"})
    assert result.exit_code == 2 and "No such option: --no-cache" in result.output


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("name another `out`, or `train`", "name another --out, or --train"),
        ("try `student.learning_rate=1e-5`", "try --set student.learning_rate=1e-5"),
        ("`teacher.prompt=per_class` or `budget.max_tokens`", "--prompt per_class or --max-tokens"),
        ("check `teacher.base_url`; `data.data_dir`", "check --base-url; --data-dir"),
        ("`public=True` or `format=onnx`", "--public or --format onnx"),
        ("`frozen`, `pgkd models get minilm`, `teacher.mode`", "`frozen`, `pgkd models get minilm`, teacher.mode"),
    ],
)
def test_messages_of_the_library_are_shown_with_the_options_that_help(message: str, shown: str) -> None:
    assert as_options(message) == shown


def test_the_library_names_no_option() -> None:
    """Its callers have none; what it says of settings and arguments becomes options on the command line."""
    package = Path(pgkd_agent.__file__).parent
    of_tools = {"embedded.py", "hub.py", "pages.py"}  # of pip, and whole commands to run
    texts = {
        f"{path.name}: {text}"
        for path in package.rglob("*.py")
        if "cli" not in path.relative_to(package).parts and path.name not in of_tools
        for text in raised(ast.parse(path.read_text(encoding="utf-8")))
        if re.search(r"(^|[\s(`])--([a-z]|$)", text)
    }
    assert texts == set()


def raised(tree: ast.AST) -> Iterator[str]:
    """All texts but docstrings."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
