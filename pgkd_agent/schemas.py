"""JSON Schemas of what people and programs write and read, generated from the models into `schemas/`."""

from __future__ import annotations

import json
from typing import Any

from pgkd_agent.answer import Samples
from pgkd_agent.config import PGKDConfig
from pgkd_agent.resources import resource_folder


def schemas() -> dict[str, dict[str, Any]]:
    """File name to schema."""
    return {
        "config.schema.json": PGKDConfig.model_json_schema(),
        "samples.schema.json": Samples.model_json_schema(),
    }


def render(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, schema in schemas().items():
        (resource_folder("schemas") / name).write_text(render(schema), encoding="utf-8")
