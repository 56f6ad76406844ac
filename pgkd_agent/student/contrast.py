"""Supervised contrastive loss (Khosla et al. 2020): texts of a class come together, others apart.

Batches of many classes hold few pairs of one class; so each text is also compared with those of the steps before, as
the encoder saw them then (cross-batch memory, Wang et al. 2020).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.functional import normalize

from pgkd_agent.student.inference import watched

TEMPERATURE = 0.1
"""Cosines are divided by it."""
REMEMBERED = 1024
"""Texts of earlier steps that are compared with."""


class Contrast:
    """The loss, and what it remembers of one fit.

    Args:
        weight: Of the loss, beside a cross-entropy; 0 for none.
        head: The layer whose inputs are compared; None where nothing is.
    """

    def __init__(self, weight: float, head: torch.nn.Linear | None = None) -> None:
        self.weight = weight
        self._head = head
        self._vectors = torch.empty(0)
        self._labels = torch.empty(0, dtype=torch.int64)

    def watching(self) -> AbstractContextManager[list[Any]]:
        """What the head is given, for each time that the model runs in the block."""
        return nullcontext([]) if self._head is None else watched(self._head)

    def loss(self, vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Weighted sum over texts, in nats; a text that nothing is compared with as one of its class adds 0.

        Args:
            vectors: Of the texts, shape (n, width).
            labels: Their class ids, shape (n,), on the CPU.
        """
        vectors = normalize(vectors)
        known = self._vectors.to(vectors) if len(self._vectors) else vectors[:0].detach()
        cosines = vectors @ torch.cat([vectors, known]).T / TEMPERATURE
        itself = torch.eye(*cosines.shape, dtype=torch.bool, device=vectors.device)
        same = (labels[:, None] == torch.cat([labels, self._labels])[None, :]).to(vectors.device) & ~itself
        likely = cosines.masked_fill(itself, float("-inf")).log_softmax(dim=1).masked_fill(~same, 0.0)
        self._vectors = torch.cat([known, vectors.detach()])[-REMEMBERED:]
        self._labels = torch.cat([self._labels, labels])[-REMEMBERED:]
        return -self.weight * (likely.sum(dim=1) / same.sum(dim=1).clamp_min(1)).sum()
