"""The files in schemas/ are those of the models, and fit what they describe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pgkd_agent.config import PGKDConfig, setting_keys, to_yaml
from pgkd_agent.errors import ConfigError
from pgkd_agent.files import resource_folder
from pgkd_agent.schemas import MODELS, file_name, render, schema_of

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(MODELS))
def test_the_file_is_up_to_date(name: str) -> None:
    written = (resource_folder("schemas") / file_name(name)).read_text(encoding="utf-8")
    assert written == render(schema_of(name)), "make schemas"


def test_there_are_no_others() -> None:
    assert {path.name for path in resource_folder("schemas").glob("*.json")} == set(map(file_name, MODELS))
    with pytest.raises(ConfigError, match="no schema 'step'; there are: config, samples, result, prices, comparison"):
        schema_of("step")


def complaints(name: str, content: Any) -> list[str]:
    checker = jsonschema.Draft202012Validator(schema_of(name), format_checker=jsonschema.FormatChecker())
    return [error.message for error in checker.iter_errors(content)]


FOLDERS = ("evals", "examples", "pgkd_agent", "prompts")
"""Not all: `build` has copies, for the documentation site."""
YAML_FILES = [
    path
    for folder in FOLDERS
    for path in (CHECKOUT / folder).rglob("*.yaml")
    if "schema=" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_name_their_schema_in_the_first_line_and_fit_it(path: Path) -> None:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    schema = (path.parent / first.removeprefix("# yaml-language-server: $schema=")).resolve()
    assert schema.parent == CHECKOUT / "schemas"
    content = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str))
    assert complaints(schema.name.removesuffix(".schema.json"), content) == []


def test_the_example_and_the_price_table_are_among_them() -> None:
    assert {"demo.yaml", "prices.yaml", "table2.yaml"} <= {path.name for path in YAML_FILES}


def test_settings_as_a_run_writes_them_fit_and_mistakes_do_not() -> None:
    written = yaml.safe_load(to_yaml(PGKDConfig()))
    assert complaints("config", written) == []
    assert complaints("config", {"student": {"learning_rat": 1e-5}})
    assert complaints("config", {"pgkd": {"num_kd_steps": -1}})
    assert complaints("config", {"evidence": {"source": "guess"}})


def test_every_setting_has_its_meaning_in_the_schema() -> None:
    schema = schema_of("config")
    sections = {"": schema, **{f"{name}.": schema["$defs"][model] for name, model in _sections(schema)}}
    described = {
        prefix + key
        for prefix, part in sections.items()
        for key, value in part["properties"].items()
        if value.get("description")
    }
    assert set(setting_keys(PGKDConfig)) <= described


def _sections(schema: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value["$ref"].rpartition("/")[2]) for name, value in schema["properties"].items() if "$ref" in value]


def test_a_file_of_settings_may_begin_with_a_recipe() -> None:
    assert complaints("config", {"recipe": "paper", "seed": 1}) == []
    assert complaints("config", {"recipe": "best"}) and complaints("config", {"recipes": "paper"})
