"""Weights of samples, with a linear classifier instead of a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pgkd_agent.experiments.methods.sungen import agreement, learn_weights


class Linear:
    def __init__(self, inputs: np.ndarray, class_ids: np.ndarray) -> None:
        self._inputs, self._class_ids = inputs, class_ids
        self._model = LogisticRegression(C=1.0, max_iter=200)
        self.fits: list[np.ndarray] = []

    def fit(self, weights: np.ndarray) -> None:
        self.fits.append(weights)
        self._model.fit(self._inputs, self._class_ids, sample_weight=weights)

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        return self._model.predict_proba(self._inputs), self._inputs


def blobs(wrong: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of three classes, labels of which a share is wrong, and which."""
    drawn = np.random.default_rng(seed)
    truth = np.arange(240) % 3
    inputs = drawn.normal(size=(240, 8)) + 3 * np.eye(3, 8)[truth]
    is_wrong = drawn.random(240) < wrong
    return inputs, np.where(is_wrong, (truth + 1) % 3, truth), is_wrong


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_weights_fall_on_planted_wrong_labels_and_rise_on_right_ones(share: float) -> None:
    inputs, class_ids, is_wrong = blobs(share)
    learner = Linear(inputs, class_ids)
    weights = learn_weights(learner, class_ids.tolist(), 10, np.random.default_rng(1))
    assert (learner.fits[0] == 0.5).all() and len(learner.fits) == 10
    assert ((weights > 0) & (weights < 1)).all()
    assert np.mean(weights[is_wrong] < 0.5) > 0.9 and np.mean(weights[~is_wrong] > 0.5) > 0.9


def test_the_product_is_that_of_automatic_gradients() -> None:
    inputs, class_ids, _ = blobs(0.3)
    inputs, class_ids = inputs[:12], class_ids[:12]
    drawn = np.random.default_rng(2)
    matrix = torch.tensor(drawn.normal(size=(3, 8)), requires_grad=True)
    bias = torch.tensor(drawn.normal(size=3), requires_grad=True)
    probabilities = (torch.tensor(inputs) @ matrix.T + bias).softmax(dim=1)
    right = probabilities[torch.arange(12), torch.tensor(class_ids)]
    outer = np.array([0, 3, 4, 11])

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        parts = torch.autograd.grad(loss, (matrix, bias), retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    robust = gradient((1 - right)[outer.tolist()].mean())
    expected = [float(gradient(-right[row].log()) @ robust) for row in range(12)]
    found = agreement(probabilities.detach().numpy(), inputs, class_ids, outer)
    assert found == pytest.approx(np.array(expected), rel=1e-6)
