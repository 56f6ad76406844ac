"""What computes and what learns: in bfloat16 a copy of the model computes, and the model's float32 weights learn.

Autocast would convert weights, activations and gradients back and forth in every layer; here a step converts the
weights once, and their gradients once.
"""

from __future__ import annotations

import copy
from typing import Any

import torch


class Trainee:
    """A model in training.

    Args:
        bf16: Whether to compute in bfloat16.
    """

    def __init__(self, model: Any, bf16: bool) -> None:
        self.computing = copy.deepcopy(model).to(torch.bfloat16) if bf16 else model
        self._is_copy = bf16
        self._is_first_pass = True
        pairs = zip(model.parameters(), self.computing.parameters(), strict=True)
        learned = [(weight, copied) for weight, copied in pairs if weight.requires_grad]
        self._weights = [weight for weight, _ in learned]
        self._copies = [copied for _, copied in learned]
        sizes = [weight.numel() for weight in self._weights]
        self._flat = torch.zeros(sum(sizes), device=model.device)  # all gradients, one after the other
        for weight, part in zip(self._weights, torch.split(self._flat, sizes), strict=True):
            weight.grad = part.view_as(weight)

    def begin_step(self) -> None:
        """Forget the gradients of the last step."""
        self._is_first_pass = True
        if not self._is_copy:
            self._flat.zero_()

    def collect_gradients(self) -> None:
        """Add those of a backward pass to those of the passes before it in this step."""
        if not self._is_copy:
            return
        used = [pair for pair in zip(self._weights, self._copies, strict=True) if pair[1].grad is not None]
        if self._is_first_pass and len(used) < len(self._weights):
            self._flat.zero_()
        collect = torch._foreach_copy_ if self._is_first_pass else torch._foreach_add_
        collect([weight.grad for weight, _ in used], [copied.grad for _, copied in used])
        for _, copied in used:
            copied.grad = None
        self._is_first_pass = False

    def clip_gradients(self, most: float) -> None:
        """Shorten the gradient to this norm where it is longer."""
        norm = torch.dot(self._flat, self._flat).sqrt()
        if norm > most:
            self._flat.mul_(most / norm)

    def show_weights(self) -> None:
        """Let what computes have the weights as they were learned."""
        if self._is_copy:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._weights)

    def release(self) -> None:
        """Leave the model without gradients."""
        for weight in self._weights:
            weight.grad = None
