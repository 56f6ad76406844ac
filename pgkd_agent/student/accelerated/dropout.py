"""Dropout for training on a CPU, where drawing a mask for every layer and batch takes a seventh of a fit's time.

Masks are parts of a pool of independent draws, from a random place each, so within a layer and batch all draws are
independent. Two masks share draws where their places overlap, but at other elements; every epoch draws a new pool.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface

POOL = 1 << 22
"""Draws in a pool; a layer of width 768 takes 1.6 million for 32 texts of 64 tokens. Masks of more than half of the
pool are drawn anew."""

ATTENTION = "pgkd_pooled"
"""Name of the attention below among those of transformers."""

ATTENTION_OF = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
"""Types of models whose attention is the plain one below; others have windows, rotations or shared heads."""

LARGEST_SCORES = POOL // 2
"""Attention scores computed at a time, of as many texts as have no more: memory does not grow with the length."""


class MaskPool:
    """Masks that hold the scale of what is kept: 0, or 1 / (1 - p).

    Args:
        seed: Of the draws, and of the places where masks are taken from.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._pools: dict[tuple[float, torch.dtype], torch.Tensor] = {}

    def renew(self) -> None:
        """Draw anew, on demand."""
        self._pools.clear()

    def mask(self, shape: Sequence[int], dtype: torch.dtype, p: float) -> torch.Tensor:
        size = math.prod(shape)
        if size > POOL // 2:  # parts of nearly the whole pool would be nearly the same
            return dropout(torch.ones(*shape, dtype=dtype), p)
        pool = self._pools.get((p, dtype))
        if pool is None:
            pool = torch.empty(POOL, dtype=dtype).bernoulli_(1 - p, generator=self._generator).div_(1 - p)
            self._pools[p, dtype] = pool
        start = self._random.randrange(POOL - size + 1)
        return pool[start : start + size].view(*shape)


class PooledDropout(nn.Module):
    """Like `nn.Dropout`."""

    def __init__(self, p: float, pool: MaskPool) -> None:
        super().__init__()
        self.p = p
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.pool.mask(x.shape, x.dtype, self.p) if self.training and self.p else x


@contextmanager
def pooled_dropout(model: Any, seed: int) -> Iterator[MaskPool]:
    """Within the block the model's dropout takes its masks from a pool.

    Attention too, in the models of `ATTENTION_OF`: they leave it to a function that is registered with transformers.
    Elsewhere than on a CPU the model stays as it is.
    """
    pool = MaskPool(seed)
    if model.device.type != "cpu":
        yield pool
        return
    layers = [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if type(layer) is nn.Dropout
    ]
    config = model.config
    is_plain = config.model_type in ATTENTION_OF and not getattr(config, "is_decoder", False)
    switches = is_plain and config._attn_implementation == "eager"
    try:
        for parent, name, layer in layers:
            setattr(parent, name, PooledDropout(layer.p, pool).train(layer.training))
        if switches:
            model.set_attn_implementation(ATTENTION)
        yield pool
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer.train(parent.training))
        if switches:
            model.set_attn_implementation("eager")


def pooled_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Softmax attention, of a few texts at a time where they are long.

    Then only what goes in is kept for the backward pass, and the scores are computed again.

    Args:
        query, key, value: Shape (texts, heads, tokens, head width).
        attention_mask: Added to the scores, shape (texts, 1, 1, tokens).
    Returns:
        Shape (texts, tokens, heads, head width).
    """
    texts, heads, tokens, width = query.shape
    query = query * (width**-0.5 if scaling is None else scaling)
    layer = getattr(module, "dropout", None)
    pool = layer.pool if dropout and isinstance(layer, PooledDropout) else None
    at_once = max(1, LARGEST_SCORES // (heads * tokens * tokens))
    results = []
    for start in range(0, texts, at_once):
        rows = slice(start, start + at_once)
        bias = None if attention_mask is None else attention_mask[rows]
        shape = (len(query[rows]), heads, tokens, tokens)
        mask = None if pool is None else pool.mask(shape, query.dtype, dropout)
        part = (query[rows], key[rows], value[rows], bias, mask)
        if at_once < texts and torch.is_grad_enabled():
            results.append(checkpoint(_attend, *part, use_reentrant=False, preserve_rng_state=False))
        else:
            results.append(_attend(*part))
    return (results[0] if len(results) == 1 else torch.cat(results)).transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    scores = torch.matmul(query, key.transpose(2, 3))
    weights = (scores if bias is None else scores + bias).softmax(dim=-1).to(value.dtype)
    return torch.matmul(weights if mask is None else weights * mask, value)


def padding_bias(
    batch_size: int,
    kv_length: int,
    attention_mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    **_: Any,
) -> torch.Tensor | None:
    """What is added to attention scores, so that no weight falls on padding: shape (texts, 1, 1, tokens)."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    bias = torch.zeros(batch_size, 1, 1, kv_length, dtype=dtype)
    return bias.masked_fill_(attention_mask[:, None, None, :] == 0, torch.finfo(dtype).min)


AttentionInterface.register(ATTENTION, pooled_attention)
AttentionMaskInterface.register(ATTENTION, padding_bias)
