"""Encode once, then form batches of similar length: padding is most of the cost on short texts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

Encoded = list[list[int]]
"""Token ids per text, special tokens included."""

POOL_BATCHES = 16
"""Training batches are sorted by length within pools of this many, which keeps their order random."""


CHARS_PER_TOKEN = 16
"""More than words and the blanks between them take; a text that takes more is encoded whole."""


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """Token ids of all texts, at most `max_length` each.

    Of a long text only the beginning is encoded, up to a blank: the tokens behind it would cost time and be thrown
    away. Where that gives fewer tokens than allowed, the whole text is taken, so that the result is the same.
    """
    keeps_beginning = tokenizer.truncation_side == "right"
    beginnings = [_beginning(text, max_length * CHARS_PER_TOKEN) if keeps_beginning else text for text in texts]
    ids = _encode(tokenizer, beginnings, max_length)
    too_few = [
        number
        for number, (text, beginning) in enumerate(zip(texts, beginnings, strict=True))
        if len(beginning) < len(text) and len(ids[number]) < max_length
    ]
    if too_few:
        for number, row in zip(too_few, _encode(tokenizer, [texts[n] for n in too_few], max_length), strict=True):
            ids[number] = row
    return ids


def count_cut(tokenizer: Any, texts: Sequence[str], encoded: Encoded, max_length: int) -> int:
    """How many of the texts have more tokens than `encode` gave of them."""
    full = [text for text, row in zip(texts, encoded, strict=True) if len(row) >= max_length]
    return sum(len(row) > max_length for row in encode(tokenizer, full, max_length + 1)) if full else 0


def _beginning(text: str, chars: int) -> str:
    """Without a part of a word; the whole text where it has no blank in time."""
    if len(text) <= chars:
        return text
    end = text.rfind(" ", 0, chars)
    return text[:end] if end > 0 else text


def _encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    """In one call, which a fast tokenizer spreads over the cores."""
    ids: Encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return ids


LENGTH_STEP, SHORT_STEP, SHORT = 8, 4, 64
"""Lengths are padded up to a multiple of the step, up to 64 tokens of the smaller one. The CPU kernels keep something
for every shape they have seen: with any length allowed, fits on long texts grew by hundreds of megabytes an epoch."""


def pad(tokenizer: Any, rows: Sequence[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad to a common length: `input_ids` and `attention_mask`, shape (rows, length); `token_type_ids` where not all 0.

    The length is the longest row's, rounded up by `padded_length` where the student takes as much.
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    longest = int(lengths.max())
    rounded = padded_length(longest)
    length = rounded if rounded <= tokenizer.model_max_length else longest
    ids = np.full((len(rows), length), tokenizer.pad_token_id, dtype=np.int64)
    mask = np.arange(length) < lengths[:, None]
    if tokenizer.padding_side == "left":
        mask = mask[:, ::-1]
    ids[mask] = np.concatenate(rows)
    arrays = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if segments := _segments(tokenizer):
        arrays["token_type_ids"] = sum((ids == token) * segment for token, segment in segments.items())
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


@lru_cache(maxsize=4)
def _segments(tokenizer: Any) -> dict[int, int]:
    """Segments other than 0 by special token, of one text: XLNet's classifier reads a token with one of its own."""
    if "token_type_ids" not in tokenizer.model_input_names:
        return {}
    found = tokenizer("a", return_token_type_ids=True)
    pairs = zip(found["input_ids"], found["token_type_ids"], strict=True)
    return {token: segment for token, segment in pairs if segment and token in tokenizer.all_special_ids}


def padded_length(length: int) -> int:
    step = SHORT_STEP if length <= SHORT else LENGTH_STEP
    return math.ceil(length / step) * step


def training_batches(encoded: Encoded, batch_size: int, seed: int) -> list[list[int]]:
    """Row numbers per batch: each row once, batches of similar length in random order."""
    generator = random.Random(seed)
    order = list(range(len(encoded)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * POOL_BATCHES):
        pool = sorted(order[start : start + batch_size * POOL_BATCHES], key=lambda row: len(encoded[row]))
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    generator.shuffle(batches)
    return batches


def inference_batches(encoded: Encoded, batch_size: int, max_tokens: int) -> Iterator[list[int]]:
    """Row numbers per batch, longest first, so that a lack of memory shows at once.

    Args:
        batch_size: Most rows of a batch.
        max_tokens: Most tokens of a batch, padding included; a single row may be longer.
    """
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
    start = 0
    while start < len(order):
        length = padded_length(len(encoded[order[start]]))
        rows = min(batch_size, max(1, max_tokens // max(length, 1)))
        yield order[start : start + rows]
        start += rows
