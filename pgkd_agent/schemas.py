"""JSON Schemas of what people and programs write and read, generated from the models into `schemas/`."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter

from pgkd_agent.config import RECIPES, PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.compare.plan import ComparisonFile
from pgkd_agent.experiments.prompt_evals.suite import PromptSuite
from pgkd_agent.files import resource_folder
from pgkd_agent.runs.summary import RunResult
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.teacher.prompting.answer import Samples

MODELS: dict[str, Any] = {
    "config": PGKDConfig,
    "samples": Samples,
    "result": RunResult,
    "prices": PriceTable,
    "comparison": ComparisonFile,
    "prompt_suite": PromptSuite,
}
"""The run's settings, the answer asked of a teacher, `result.json`, a price table, and what `pgkd compare` and
`pgkd eval prompts` read."""


def schema_of(name: str) -> dict[str, Any]:
    """
    Raises:
        ConfigError: There is no schema of this name.
    """
    if name not in MODELS:
        raise ConfigError(f"no schema {name!r}; there are: {', '.join(MODELS)}")
    schema = TypeAdapter(MODELS[name]).json_schema()
    if name == "config":  # a file may begin with a recipe, which is not kept beside what it sets
        about = "Settings to begin with: `paper` sets what the paper says where the defaults differ."
        recipe = {"default": "default", "description": about, "enum": [*RECIPES], "title": "Recipe", "type": "string"}
        schema["properties"] = {"recipe": recipe, **schema["properties"]}
    return schema


def file_name(name: str) -> str:
    return f"{name}.schema.json"


def render(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in MODELS:
        (resource_folder("schemas") / file_name(name)).write_text(render(schema_of(name)), encoding="utf-8")
