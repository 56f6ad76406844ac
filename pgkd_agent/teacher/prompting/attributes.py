"""Attributes that samples are asked to have, so that a request's samples differ by construction."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Mapping
from pathlib import Path

from pgkd_agent.config import read_yaml
from pgkd_agent.errors import ConfigError, PromptError

Attributes = Mapping[str, tuple[str, ...]]
"""Possible values by attribute."""


def load_attributes(file: Path) -> Attributes:
    """Read a YAML mapping from attributes to lists of values.

    Raises:
        PromptError: The file cannot be read, has no attributes, or a value is no text or stands twice in its list.
    """
    try:
        content = read_yaml(file)
    except ConfigError as error:
        raise PromptError(str(error)) from error
    if not content:
        raise PromptError(f"{file} is empty; expected attributes with a list of values each, e.g. 'style: [plain]'")
    return {_checked_name(name, file): _checked_values(name, values, file) for name, values in content.items()}


def draw_attributes(attributes: Attributes, count: int, random: random.Random) -> list[dict[str, str]]:
    """Draw one value of each attribute for each of `count` samples.

    No combination comes twice before all have come once.
    """
    combinations = math.prod(len(values) for values in attributes.values())
    if combinations > sys.maxsize:  # more than `random.sample` takes, and too many for one to come twice
        return [_combination(attributes, random.randrange(combinations)) for _ in range(count)]
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += random.sample(range(combinations), min(combinations, count - len(drawn)))
    return [_combination(attributes, number) for number in drawn]


def _combination(attributes: Attributes, number: int) -> dict[str, str]:
    """The combination with this number: a digit per attribute, to the base of its number of values."""
    combination = {}
    for name, values in attributes.items():
        number, digit = divmod(number, len(values))
        combination[name] = values[digit]
    return combination


def _checked_name(name: object, file: Path) -> str:
    if not isinstance(name, str):
        raise PromptError(f"{file}: found the attribute {name!r}, expected a text; put it in quotes")
    return name


def _checked_values(name: str, values: object, file: Path) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise PromptError(f"{file}: {name!r} is {values!r}, expected a list of at least one value")
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise PromptError(f"{file}: {name!r} lists {value!r}, expected a text; put it in quotes")
        if values.count(value) > 1:
            raise PromptError(f"{file}: {name!r} lists {value!r} {values.count(value)} times, expected once")
    return tuple(values)
