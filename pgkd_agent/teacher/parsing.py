"""Read samples out of a raw reply, each on its own: one bad sample never costs the others.

Accepted are `{"samples": [...]}`, a bare list, several lists or objects, and JSON lines, with prose, code
fences or a `<think>` block around them. Of a reply that was cut off, the whole samples are kept and the
cut one is dropped. Besides `text` and `label`, the keys in `TEXT_KEYS` and `LABEL_KEYS` are understood, in
any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgkd_agent.answer import Sample

TEXT_KEYS = (
    "text",
    "sentence",
    "sample",
    "content",
    "input",
    "query",
    "utterance",
    "message",
    "headline",
    "title",
)
LABEL_KEYS = ("label", "class", "category", "intent", "topic", "class_label", "gold_label", "correct_label")

_THINKING = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_OPENING = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(strict=False)  # models put raw line breaks into strings


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """Samples in order; `num_malformed` counts objects that were not a sample."""

    samples: tuple[Sample, ...]
    num_malformed: int


def parse_samples(raw: str, default_label: str | None = None) -> ParsedReply:
    """Read all samples.

    Args:
        default_label: Label of a sample that has none: the class the request was about.
    """
    samples: list[Sample] = []
    malformed = 0
    for value in _json_values(_THINKING.sub("", raw)):
        for item in _flatten(value):
            sample = _sample(item, default_label)
            if sample is None:
                malformed += 1
            else:
                samples.append(sample)
    return ParsedReply(tuple(samples), malformed)


def _json_values(text: str) -> Iterator[Any]:
    """All outermost arrays and objects that are complete; of an incomplete one, its complete parts."""
    position = 0
    while opening := _OPENING.search(text, position):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
        except (json.JSONDecodeError, RecursionError):
            position = opening.end()
            continue
        yield value


def _flatten(value: Any) -> Iterator[Any]:
    """Items that should be samples: those of lists, and of an object that wraps lists of objects."""
    if isinstance(value, list):
        for item in value:
            yield from _flatten(item)
        return
    if isinstance(value, dict) and not _find(value, TEXT_KEYS):
        wrapped = [item for item in value.values() if isinstance(item, list)]
        if wrapped:
            yield from _flatten(wrapped)
            return
    yield value


def _sample(item: Any, default_label: str | None) -> Sample | None:
    if not isinstance(item, dict):
        return None
    text, label = _find(item, TEXT_KEYS), _find(item, LABEL_KEYS)
    try:
        return Sample.model_validate({"text": item.get(text or ""), "label": item[label] if label else default_label})
    except ValidationError:
        return None


def _find(item: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    by_lower = {key.lower(): key for key in item}
    return next((by_lower[key] for key in keys if key in by_lower), None)
