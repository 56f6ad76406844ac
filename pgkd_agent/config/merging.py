"""Nested settings under dotted keys, and what is wrong with them in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError


def nested(key: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for `a.b`."""
    for part in reversed(key.split(".")):
        value = {part: value}
    found: dict[str, Any] = value
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` wins, key by key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All complaints in one line, with the closest setting for an unknown one.

    Args:
        model: What was validated.
    """
    lines: dict[str, str] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not _UNION_BRANCH.match(str(part)))
        if item["type"] == "extra_forbidden":
            line = f"unknown setting {key!r}{_closest(key, model)}"
        else:
            line = f"{key}: {item['msg'].lower()}, found {item['input']!r}"
        lines.setdefault(key, line)  # of a setting that may have one of two types pydantic says both
    return "; ".join(lines.values())


_UNION_BRANCH = re.compile(r"(constrained-)?float$|tuple\[")
"""How pydantic names a type among several in the place of an error."""


def _closest(key: str, model: type[BaseModel]) -> str:
    known = list(setting_keys(model))
    matches = get_close_matches(key, known, n=1)
    return f" (closest: {matches[0]!r})" if matches else ""


def setting_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """All dotted keys, sections flattened."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from setting_keys(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name
