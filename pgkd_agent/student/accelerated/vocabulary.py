"""Train only the embeddings of tokens that occur: in a small encoder the rest is half of all weights.

A token that no row of a fit holds has no gradient, so the optimizer only reads, writes and decays it. Left out, every
other weight becomes the same as with it, and unseen tokens keep their pretrained embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from pgkd_agent.student.accelerated.precision import embed
from pgkd_agent.student.batching import Encoded


class OccurringTokens(nn.Module):
    """An embedding of some of the tokens of another one, which takes the ids of the whole vocabulary.

    Args:
        token_ids: Sorted, without repetitions.
    """

    position: torch.Tensor
    """Of each token of the vocabulary among those that are here; -1, and so an error, for others."""

    def __init__(self, whole: nn.Embedding, token_ids: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(whole.weight.detach()[token_ids], whole.weight.requires_grad)
        position = torch.full((whole.num_embeddings,), -1, dtype=torch.int64, device=whole.weight.device)
        position[token_ids] = torch.arange(len(token_ids), device=position.device)
        self.register_buffer("position", position, persistent=False)
        padding = whole.padding_idx
        self._padding = None if padding is None or padding not in token_ids else int(position[padding])

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return embed(self.position[input_ids], self.weight, self._padding)


@contextmanager
def only_occurring_tokens(model: Any, pad_token_id: int, *encoded: Encoded) -> Iterator[None]:
    """Within the block the model knows only the tokens of these texts; afterwards all, with what was learned.

    Models with another kind of embedding stay as they are.
    """
    try:
        whole = model.get_input_embeddings()
    except NotImplementedError:  # of a model that has none, such as one over characters
        whole = None
    if type(whole) is not nn.Embedding or whole.max_norm is not None or whole.scale_grad_by_freq:
        yield
        return
    ids = {pad_token_id}.union(*chain.from_iterable(encoded))
    token_ids = torch.tensor(sorted(ids), device=whole.weight.device)
    part = OccurringTokens(whole, token_ids)
    model.set_input_embeddings(part)
    try:
        yield
    finally:
        with torch.no_grad():
            whole.weight[token_ids] = part.weight
        model.set_input_embeddings(whole)
