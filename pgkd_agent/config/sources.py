"""Where settings come from. Precedence: defaults < `--recipe` < YAML file < `--set key=value` < named flags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pgkd_agent.config.merging import explain, merge, nested
from pgkd_agent.config.settings import PGKDConfig
from pgkd_agent.errors import ConfigError

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "data": {"rows": 1000},
        "student": {
            "name": "bert-base-uncased",
            "learning_rate": 2e-5,
            "train_batch_size": 64,
            "head_init": "random",
            "label_smoothing": 0.0,
            "soft_labels": 0.0,
            "balance": 0.0,
            "max_epochs": 30,
            "restart": "continue",
            "best_by": "loss",
            "refit": False,
        },
        "teacher": {"prompt": "paper"},
        "evidence": {"source": "history"},
    },
}


def build_config(
    *,
    recipe: str | None = None,
    file: Path | None = None,
    layers: Iterable[Mapping[str, Any]] = (),
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> PGKDConfig:
    """Merge all sources of settings.

    Args:
        layers: Nested mappings, as a file holds one; later ones win.
        assignments: `key=value` with a dotted key, the value read as YAML.
        flags: Dotted key to value; None values count as not given.

    Raises:
        ConfigError: An unknown key or recipe, a value out of range, or a file that is not a mapping.
    """
    all_layers = [read_yaml(file)] if file else []
    all_layers += map(dict, layers)
    all_layers.append(nested_settings(assignments))
    all_layers += [nested(key, value) for key, value in (flags or {}).items() if value is not None]
    merged: dict[str, Any] = {}
    for layer in all_layers:
        merged = merge(merged, layer)
    in_file = merged.pop("recipe", "default")
    name = in_file if recipe is None else recipe
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; there are: {', '.join(RECIPES)}")
    try:
        return PGKDConfig.model_validate(merge(RECIPES[name], merged))
    except ValidationError as error:
        raise ConfigError(f"invalid settings: {explain(error, PGKDConfig)}") from error


def to_yaml(config: PGKDConfig) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; `1e-5` is a number.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        content = _load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(content or {}, dict):
        raise ConfigError(f"{file} holds a {type(content).__name__}, expected a mapping")
    return content or {}


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-5` as text; people mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _load(text: str) -> Any:
    """
    Raises:
        yaml.YAMLError: As the name says; also for what PyYAML passes on from Python, such as of the date 2024-13-45.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # any type: what a value is read as decides which
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from error


def nested_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """The settings that `key=value` assignments name, nested as in a file; later ones win.

    Raises:
        ConfigError: One is not of this form.
    """
    merged: dict[str, Any] = {}
    for assignment in assignments:
        merged = merge(merged, nested(*_split(assignment)))
    return merged


def _split(assignment: str) -> tuple[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"setting {assignment!r}: expected key=value, e.g. student.learning_rate=1e-5")
    try:
        return key.strip(), _load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"setting {assignment!r}: the value is not readable: {error}") from error
