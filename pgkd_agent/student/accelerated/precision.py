"""What computes and what learns: in bfloat16 a copy of the model computes, and the model's float32 weights learn.

Autocast would convert weights, activations and gradients back and forth in every layer; here a step converts the
weights once, and their gradients once.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding


class Trainee:
    """A model in training.

    Args:
        bf16: Whether to compute in bfloat16.
    """

    def __init__(self, model: Any, bf16: bool) -> None:
        self.computing = _bf16_copy(model) if bf16 else model
        self._is_copy = bf16
        pairs = zip(model.parameters(), self.computing.parameters(), strict=True)
        learned = [(weight, computes) for weight, computes in pairs if weight.requires_grad]
        self._weights = [weight for weight, _ in learned]
        self._copies = [computes for _, computes in learned]
        sizes = [weight.numel() for weight in self._weights]
        self._flat = torch.zeros(sum(sizes) if bf16 else 0, device=model.device)
        """All float32 gradients, one after the other."""
        parts = torch.split(self._flat, sizes) if bf16 else ()
        self._gradients = [part.view_as(weight) for part, weight in zip(parts, self._weights, strict=False)]

    def begin_step(self) -> None:
        """Forget the gradients of the last step."""
        for weight in self._weights:
            weight.grad = None

    def collect_gradients(self) -> None:
        """Add those of a backward pass to those of the passes before it in this step."""
        if not self._is_copy:
            return
        first: list[tuple[torch.Tensor, torch.Tensor]] = []
        more: list[tuple[torch.Tensor, torch.Tensor]] = []
        for weight, computes, gradient in zip(self._weights, self._copies, self._gradients, strict=True):
            if computes.grad is None:
                continue
            (more if weight.grad is not None else first).append((gradient, computes.grad))
            weight.grad = gradient
            computes.grad = None
        for collect, pairs in ((torch._foreach_copy_, first), (torch._foreach_add_, more)):
            if pairs:
                collect([total for total, _ in pairs], [new for _, new in pairs])

    def clip_gradients(self, most: float) -> None:
        """Shorten the gradient to this norm where it is longer."""
        if not self._is_copy or any(weight.grad is None for weight in self._weights):
            torch.nn.utils.clip_grad_norm_(self._weights, most)
            return
        norm = torch.dot(self._flat, self._flat).sqrt()
        if norm > most:
            self._flat.mul_(most / norm)

    def show_weights(self) -> None:
        """Let what computes have the weights as they were learned."""
        if self._is_copy:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._weights)


def _bf16_copy(model: Any) -> Any:
    """With bfloat16 parameters; buffers, as the frequencies of rotary positions, stay as they are."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for module in copied.modules():
        if type(module) is nn.Embedding:
            module.forward = MethodType(_embed, module)  # type: ignore[method-assign]
    return copied


def _embed(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    return embed(ids, module.weight, module.padding_idx)


def embed(ids: torch.Tensor, weight: torch.Tensor, padding: int | None) -> torch.Tensor:
    """Look up rows so that gradients of a row add up in float32: of a thousand in bfloat16 most would be lost."""
    return embedding(ids, weight.float(), padding).to(weight.dtype)
