"""Read raw replies: samples, each on its own, so that one bad sample never costs the others, and zero-shot answers.

Accepted are `{"samples": [...]}`, a bare list, several lists or objects, and JSON lines, with prose, code fences or
thoughts around them; samples as JSON in a string, by label (`{"refund": ["...", ...]}`), or by column (`{"text":
[...], "label": [...]}`). Of a reply that was cut off, the whole samples are kept, and the cut one is malformed.
Besides `text` and `label`, the keys in `TEXT_KEYS` and `LABEL_KEYS` are understood, in any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pgkd_agent.teacher.prompting.answer import Sample
from pgkd_agent.teacher.prompting.json_reading import OPENING, Piece, pieces, without_thinking
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

_TEXT_LISTS = ("samples", *(f"{key}s" for key in TEXT_KEYS))
_LABEL_LISTS = ("classes", "categories", *(f"{key}s" for key in LABEL_KEYS))
_DEEPEST = 20
"""Levels at which a sample may be in a reply."""
_PAIR = re.compile(r'"(\w+)"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')
_BROKEN_SAMPLE = re.compile(
    rf"\{{\s*[\"'“]?(?:{'|'.join(TEXT_KEYS)})\b[^\[{{]*(?<!\[)\Z|\{{\s*[\"'“]\w*\Z", re.IGNORECASE
)
"""From the bracket of an object that cannot be read to the next one."""

Resolve = Callable[[str], str | None]
"""From a written label to one of the taxonomy, or None."""


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """Samples in order; `num_malformed` counts what was not a sample, and objects that could not be read."""

    samples: tuple[Sample, ...]
    num_malformed: int


def parse_samples(raw: str, default_label: str | None = None, resolve: Resolve = lambda _label: None) -> ParsedReply:
    """Read all samples.

    Args:
        default_label: Label of a sample that has none: the class the request was about.
        resolve: Tells the labels among the keys of samples by label.
    """
    text = without_thinking(raw)
    found: list[Sample | None] = []
    for piece in pieces(text):
        if piece.is_whole:
            found += _read(piece.value, default_label, resolve)
        elif _is_broken_sample(text, piece):
            found.append(None)
    if not found and text.lstrip().startswith('"'):  # the whole reply as a string
        with suppress(ValueError):
            return parse_samples(str(json.loads(text, strict=False)), default_label, resolve)
    samples = tuple(sample for sample in found if sample is not None)
    return ParsedReply(samples, len(found) - len(samples))


def parse_label(raw: str, resolve: Resolve) -> str | None:
    """Read the one label of a zero-shot answer.

    Every value under `ANSWER_KEYS` counts that resolves to a label, in an object or in bare pairs as the paper's
    prompt spells them; without such a key, the whole answer may be the label. Different labels cancel out.

    Args:
        resolve: From a written label to one of the taxonomy, or None.
    """
    text = without_thinking(raw)
    found = {label for written in _answers(text) if (label := resolve(written))}
    if not found and (label := resolve(text)):
        return label
    return found.pop() if len(found) == 1 else None


def _answers(text: str) -> Iterator[str]:
    values = [piece.value for piece in pieces(text) if piece.is_whole] or [
        {key: json.loads(value, parse_int=str) for key, value in _PAIR.findall(text)}
    ]
    for value in values:
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                by_lower = {key.lower(): entry for key, entry in item.items()}
                for key in ANSWER_KEYS:
                    entry = by_lower.get(key)
                    parts = entry if isinstance(entry, list) else [entry]
                    yield from (str(part) for part in parts if isinstance(part, (str, int)))


def _is_broken_sample(text: str, piece: Piece) -> bool:
    following = OPENING.search(text, piece.end)
    return _BROKEN_SAMPLE.match(text[piece.start : following.start() if following else None]) is not None


def _read(value: Any, label: str | None, resolve: Resolve, depth: int = 0) -> list[Sample | None]:
    """The samples in a value; None for each part that is none.

    Args:
        label: Of samples that name none.
    """
    if depth > _DEEPEST:
        return [None]
    if isinstance(value, str) and (inner := _json_in(value)) is not None:
        return _read(inner, label, resolve, depth + 1)
    if isinstance(value, list):
        return [sample for item in value for sample in _read(item, label, resolve, depth + 1)]
    if isinstance(value, dict):
        return _read_object(value, label, resolve, depth + 1)
    return [_sample(value, label)]


def _read_object(item: dict[str, Any], label: str | None, resolve: Resolve, depth: int) -> list[Sample | None]:
    """A sample, columns of samples, samples by label, or something around samples."""
    text_key, label_key = _find(item, (*TEXT_KEYS, *_TEXT_LISTS)), _find(item, (*LABEL_KEYS, *_LABEL_LISTS))
    texts, labels = item.get(text_key or ""), item.get(label_key or "", label)
    inner: list[Sample | None] = []
    for part in (part for key, part in item.items() if key != label_key and _holds_objects(part)):
        found = _read(part, labels if isinstance(labels, str) else label, resolve, depth)
        inner += found if isinstance(part, list) or any(found) else []
    if isinstance(texts, str) and (not any(inner) or (label_key and not _find(item, ("samples",)))):
        return [_sample(texts, labels)]
    by_label = {resolve(key): part for key, part in item.items()}
    if item and None not in by_label and len(by_label) == len(item):
        return [sample for name, part in by_label.items() for sample in _read(part, name, resolve, depth)]
    if isinstance(texts, list) and not _holds_objects(texts):
        each = labels if isinstance(labels, list) else [labels] * len(texts)
        return (
            [_sample(*pair) for pair in zip(texts, each, strict=True)]
            if len(each) == len(texts)
            else [None] * len(texts)
        )
    return inner or [None]


def _json_in(text: str) -> Any:
    """The array or object that a string is, as JSON within JSON; else None."""
    text = text.strip()
    piece = next(pieces(text), None) if text[:1] in ("[", "{") else None
    return piece.value if piece and piece.is_whole and piece.end == len(text) else None


def _holds_objects(value: Any) -> bool:
    """Whether samples may be further in: in objects, or in a string of JSON."""
    if isinstance(value, list):
        return any(isinstance(item, list | dict) or _holds_objects(item) for item in value)
    return isinstance(value, dict) or (isinstance(value, str) and _json_in(value) is not None)


def _sample(text: Any, label: Any) -> Sample | None:
    try:
        read = Sample.model_validate({"text": text, "label": label})
    except ValidationError:
        return None
    return Sample(text=well_formed(read.text), label=well_formed(read.label))


def _find(item: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    by_lower = {key.lower(): key for key in item}
    return next((by_lower[key] for key in keys if key in by_lower), None)
