"""Read raw replies: samples, each on its own, so that one bad sample never costs the others, and zero-shot answers.

Accepted are `{"samples": [...]}`, a bare list, several lists or objects, and JSON lines, with prose, code
fences around them or a `<think>` block before them. Of a reply that was cut off, the whole samples are kept and the
cut one is dropped. Besides `text` and `label`, the keys in `TEXT_KEYS` and `LABEL_KEYS` are understood, in
any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgkd_agent.teacher.prompting.answer import Sample
from pgkd_agent.text import well_formed

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
ANSWER_KEYS = ("class_label", "class_names", "class_name", "label", "class", "category")
"""Keys of a zero-shot answer, the paper's first."""
LABEL_KEYS = ("label", "class", "category", "intent", "topic", "class_label", "gold_label", "correct_label")

_THINKING = re.compile(r"\A(\s*<think>.*?(</think>|\Z))+", re.DOTALL)
"""At the beginning only: further on it may be a part of a text."""
_PAIR = re.compile(r'"(\w+)"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')
_OPENING = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder(strict=False)  # models put raw line breaks into strings


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """Samples in order; `num_malformed` counts objects that were not a sample."""

    samples: tuple[Sample, ...]
    num_malformed: int


def without_thinking(raw: str) -> str:
    """A reply without what the model said to itself."""
    return _THINKING.sub("", raw)


def parse_samples(raw: str, default_label: str | None = None) -> ParsedReply:
    """Read all samples.

    Args:
        default_label: Label of a sample that has none: the class the request was about.
    """
    samples: list[Sample] = []
    malformed = 0
    for value in _json_values(without_thinking(raw)):
        for item in _flatten(value):
            sample = _sample(item, default_label)
            if sample is None:
                malformed += 1
            else:
                samples.append(sample)
    return ParsedReply(tuple(samples), malformed)


def parse_label(raw: str, resolve: Callable[[str], str | None]) -> str | None:
    """Read the one label of a zero-shot answer.

    Every value under `ANSWER_KEYS` counts that resolves to a label, in an object or in bare pairs as the paper's
    prompt spells them; without such a key, the whole answer may be the label. Different labels cancel out.

    Args:
        resolve: From a written label to one of the taxonomy, or None.
    """
    text = without_thinking(raw)
    found = {label for written in _answers(text) if (label := resolve(written))}
    if not found and (label := resolve(text.strip().strip("`*\"'.").strip())):
        return label
    return found.pop() if len(found) == 1 else None


def _answers(text: str) -> Iterator[str]:
    values = list(_json_values(text)) or [{key: json.loads(value) for key, value in _PAIR.findall(text)}]
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                by_lower = {key.lower(): entry for key, entry in item.items()}
                for key in ANSWER_KEYS:
                    entry = by_lower.get(key)
                    parts = entry if isinstance(entry, list) else [entry]
                    yield from (str(part) for part in parts if isinstance(part, (str, int)))


def _json_values(text: str) -> Iterator[Any]:
    """All outermost arrays and objects that are complete; of an incomplete one, its complete parts."""
    position = 0
    while opening := _OPENING.search(text, position):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
        except json.JSONDecodeError:
            position = opening.end()
            continue
        except RecursionError:  # a thousand brackets deep there is no sample, and each start costs as much again
            return
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
        read = Sample.model_validate({"text": item.get(text or ""), "label": item[label] if label else default_label})
    except ValidationError:
        return None
    return Sample(text=well_formed(read.text), label=well_formed(read.label))


def _find(item: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    by_lower = {key.lower(): key for key in item}
    return next((by_lower[key] for key in keys if key in by_lower), None)
