"""What the package exports is documented, and its version is the same wherever it stands."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import pgkd_agent
from pgkd_agent import version
from pgkd_agent.cli.diagnosis import _versions
from pgkd_agent.cli.main import app
from pgkd_agent.runs.recorder import environment

CHECKOUT = Path(__file__).parents[2]
SUMMARY_ENDS = re.compile(r"^(?:$|(?:Args|Attributes|Raises|Returns|Yields):$)", re.MULTILINE)
"""An empty line or a section."""


def documented() -> Iterator[tuple[str, Any]]:
    """Exported classes and functions, and the public methods and properties that the classes have of their own."""
    for name in pgkd_agent.__all__:
        exported = getattr(pgkd_agent, name)
        if inspect.isclass(exported) or inspect.isfunction(exported):  # names of types cannot have a docstring
            yield name, exported
        if inspect.isclass(exported):
            for attribute, value in vars(exported).items():
                if not attribute.startswith("_") and (callable(value) or isinstance(value, property | classmethod)):
                    yield f"{name}.{attribute}", getattr(exported, attribute)


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*pair, id=pair[0]) for pair in documented()])
def test_what_is_exported_begins_with_a_summary(name: str, thing: Any) -> None:
    written = thing.__doc__ if inspect.isclass(thing) else inspect.getdoc(thing)  # a method may take its base's
    summary = SUMMARY_ENDS.split(inspect.cleandoc(written or ""), maxsplit=1)[0].strip()
    assert summary and not summary.startswith(f"{name}("), f"{name} has no summary"  # a dataclass makes up a signature
    assert summary.endswith("."), f"the summary of {name} does not end with a full stop: {summary}"


def test_all_names_are_had_and_sorted() -> None:
    assert pgkd_agent.__all__ == sorted(pgkd_agent._HOME) and len(pgkd_agent.__all__) <= 30
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pgkd_agent.nothing


def test_the_version_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "VERSION", "7.8.9")  # metadata of an editable install stay as they were
    assert CliRunner().invoke(app, ["--version"]).output.strip() == "7.8.9"
    assert environment()["versions"]["pgkd-agent"] == "7.8.9"
    assert "pgkd-agent 7.8.9" in _versions().found


def test_one_version_everywhere() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == pgkd_agent.__version__ == citation["version"]
    headings = re.findall(r"^## (\S+)(?: - (\S+))?$", (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (pgkd_agent.__version__, str(citation["date-released"]))
