"""`FrozenStudent`: embeddings as they are under a logistic regression, in place of a student that is trained.

A fit takes a second where the student takes minutes, so choices and plans can be compared over many draws; what is
chosen is confirmed with the student itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from pgkd_agent.loop.history import texts_of
from pgkd_agent.metrics.report import class_ids, evaluate
from pgkd_agent.types import Example, FitResult, Label, Probabilities

LEAST = 1e-6
"""Probability of a class without a row."""


class FrozenStudent:
    """A `Student` of Algorithm 1; a row with shares is as many rows, each with its share as weight."""

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray], taxonomy: Sequence[Label]) -> None:
        self._embed = embed
        self._taxonomy = taxonomy
        self._head: LogisticRegression | None = None

    def reset(self) -> None:
        self._head = None

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        numbers, labels, weights = [], [], []
        for number, row in enumerate(rows):
            for name, share in getattr(row, "shares", ()) or ((row.label, 1.0),):
                numbers.append(number)
                labels.append(Example(row.text, name))
                weights.append(share)
        vectors = self._embed(texts_of(rows))
        self._head = LogisticRegression(C=10, max_iter=200)
        self._head.fit(vectors[numbers], class_ids(labels, self._taxonomy), weights)
        loss = evaluate(self.predict(texts_of(validation)), validation, self._taxonomy).loss
        return FitResult(1, 1, self.predict(texts_of(rows)), validation_loss=loss)

    def predict(self, texts: Sequence[str]) -> Probabilities:
        assert self._head is not None
        found = np.full((len(texts), len(self._taxonomy)), LEAST)
        found[:, self._head.classes_] = np.maximum(self._head.predict_proba(self._embed(texts)), LEAST)
        return found / found.sum(axis=1, keepdims=True)

    def snapshot(self) -> LogisticRegression | None:
        return self._head

    def restore(self, snapshot: LogisticRegression | None) -> None:
        self._head = snapshot
