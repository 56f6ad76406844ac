"""Encode once, then form batches of similar length: padding is most of the cost on short texts."""

from __future__ import annotations

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


def pad(tokenizer: Any, rows: Sequence[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """Pad to the longest row: `input_ids` and `attention_mask`, shape (rows, longest)."""
    batch = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt", return_attention_mask=True)
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
