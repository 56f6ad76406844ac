"""Nested settings under dotted keys, and what is wrong with them in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
    """All complaints in one line; with an unknown setting what it may have meant, or what there is.

    Args:
        model: What was validated.
    """
    lines: dict[str, str] = {}
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"] if not _UNION_BRANCH.match(str(part)))
        if item["type"] == "extra_forbidden":
            line = f"unknown setting {key!r}{_meant(key, model)}"
        else:
            line = f"{key}: {_expected(key, item['type'], item['msg'], model)}, found {item['input']!r}"
        lines.setdefault(key, line)  # of a setting that may have one of two types pydantic says both
    return "; ".join(line for key, line in lines.items() if not any(other.startswith(f"{key}.") for other in lines))


_UNION_BRANCH = re.compile(r"(constrained-)?float$|tuple\[")
"""How pydantic names a type among several in the place of an error."""
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a section",
}
"""In words, by how pydantic's name of an error of type begins."""
_IS_TYPE = re.compile(r"([a-z]+?)_(attributes_)?(type|parsing|from_float)$")
CLOSE = 0.75
"""Least likeness, from 0 to 1, of a name that is suggested for another."""


def _expected(key: str, kind: str, message: str, model: type[BaseModel]) -> str:
    is_type = _IS_TYPE.match(kind)
    if not is_type or is_type[1] not in _TYPES:
        return message[:1].lower() + message[1:]
    example = next((f", e.g. {known}" for known in setting_keys(model) if known.startswith(f"{key}.")), "")
    return f"input should be {_TYPES[is_type[1]]}{example}"


def _meant(key: str, model: type[BaseModel]) -> str:
    """The likeliest setting of the same section; else the one of this name elsewhere; else all of the section."""
    section, _, name = key.rpartition(".")
    known = list(setting_keys(model))
    names = {each.rpartition(".")[2]: each for each in known} | {
        each.split(".")[0]: each.split(".")[0] for each in known
    }
    inside = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == section]
    if close := get_close_matches(name, inside if section else names, n=1, cutoff=CLOSE):
        return f" (closest: {names[close[0]] if not section else f'{section}.{close[0]}'!r})"
    if name in names:
        return f" (closest: {names[name]!r})"
    there = inside if section else dict.fromkeys(each.split(".")[0] for each in known)
    return f" (there are: {', '.join(there)})" if there else ""


def flat_settings(settings: BaseModel) -> Iterator[tuple[str, Any]]:
    """Dotted key and value, as JSON has it, of all settings."""
    yield from _flat(settings.model_dump(mode="json"))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def setting_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """All dotted keys, sections flattened."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from setting_keys(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name
