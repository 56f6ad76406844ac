"""Weights of generated samples that make a noise-robust loss fall (SunGen, Gao et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

LEARNING_RATE = 0.25
CLIP = 3.0
"""Of the weights' optimiser: the source's."""


class Learner(Protocol):
    """A classifier whose last layer is linear."""

    def fit(self, weights: np.ndarray) -> None:
        """Train on all rows for a while, with weights of shape (n_rows,)."""
        ...

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities of all rows, shape (n_rows, n_classes), and the last layer's inputs, shape (n_rows, width)."""
        ...


def learn_weights(learner: Learner, class_ids: Sequence[int], rounds: int, drawn: np.random.Generator) -> np.ndarray:
    """Weights in (0, 1), shape (n_rows,).

    Each round trains with the weights as they are, then changes them by how a step on each row would change the robust
    loss of a random half of the rows.
    """
    import torch

    logits = torch.zeros(len(class_ids), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for _ in range(rounds):
        weights = logits.detach().sigmoid().numpy()
        learner.fit(weights)
        probabilities, inputs = learner.look()
        half = drawn.permutation(len(class_ids))[: max(1, len(class_ids) // 2)]
        slopes = -weights * (1 - weights) * agreement(probabilities, inputs, np.asarray(class_ids), half)
        logits.grad = torch.from_numpy(slopes.astype(np.float32))
        torch.nn.utils.clip_grad_norm_([logits], CLIP)
        optimizer.step()
    weights = logits.detach().sigmoid().numpy()
    return np.asarray(weights)


def agreement(probabilities: np.ndarray, inputs: np.ndarray, class_ids: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Product of each row's gradient of the cross-entropy with that of the mean robust loss over the rows `outer`.

    Gradients are those of the last layer and its bias, which stand for all (a tenth of the cost, and no second pass).
    The robust loss is 1 - p(label), to which the reverse cross-entropy is proportional: unlike the logarithm it is
    bounded, so that rows with a wrong label cannot dominate it. Shape (n_rows,).
    """
    gold = np.eye(probabilities.shape[1])[class_ids]
    with_bias = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    right = (probabilities * gold).sum(axis=1, keepdims=True)
    robust = right * (probabilities - gold)
    gradient = robust[outer].T @ with_bias[outer] / len(outer)
    return np.asarray(((probabilities - gold) * (with_bias @ gradient.T)).sum(axis=1))
