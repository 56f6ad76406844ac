"""Encode once, then form batches of similar length: padding is most of the cost on short texts."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

Encoded = list[list[int]]
"""Token ids per text, special tokens included."""

POOL_BATCHES = 16
"""Training batches are sorted by length within pools of this many, which keeps their order random."""


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> Encoded:
    ids: Encoded = tokenizer(
        list(texts), truncation=True, max_length=max_length, padding=False, return_attention_mask=False
    )["input_ids"]
    return ids


LENGTH_STEP = 8
"""Lengths are padded up to a multiple of it. The CPU kernels keep something for every shape they have seen: with any
length allowed, fits on long texts grew by hundreds of megabytes an epoch."""


def pad(tokenizer: Any, rows: Sequence[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad to a common length: `input_ids` and `attention_mask`, shape (rows, length).

    The length is the longest row's, rounded up to `LENGTH_STEP` where the student takes as much.
    """
    longest = max(map(len, rows))
    rounded = math.ceil(longest / LENGTH_STEP) * LENGTH_STEP
    batch = tokenizer.pad(
        {"input_ids": list(rows)},
        padding="max_length",
        max_length=rounded if rounded <= tokenizer.model_max_length else longest,
        return_tensors="pt",
        return_attention_mask=True,
    )
    return {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}


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


def inference_batches(encoded: Encoded, batch_size: int) -> Iterator[list[int]]:
    """Row numbers per batch, longest first, so that a lack of memory shows at once."""
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
