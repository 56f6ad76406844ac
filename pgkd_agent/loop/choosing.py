"""Which texts of a pool are worth a label: those that the student is least sure of, and no two alike; and what a
teacher's word about them is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pgkd_agent.seeding import rng
from pgkd_agent.types import Probabilities

Choice = Callable[[Probabilities, np.ndarray, int], list[int]]
"""From probabilities, embeddings and a number to the rows to label."""

SAME_MEANING = 0.95
"""Cosine of two embeddings from which one label does for both texts."""
WIDTH = 10
"""Of so many times the texts wanted those are chosen that mean different things."""


def margins(probabilities: Probabilities) -> np.ndarray:
    """How far the likeliest class is ahead of the next one, shape (n_rows,), in [0, 1]."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])


def choose(probabilities: Probabilities, embeddings: np.ndarray, num: int) -> list[int]:
    """The rows with the smallest margins, least sure first; first such as mean nothing that is chosen already.

    Args:
        probabilities: Of the student.
        embeddings: Shape (n_rows, width), each with a length of 1.
        num: How many; fewer where there are no more.
    """
    order = [int(row) for row in np.argsort(margins(probabilities), kind="stable")]
    chosen: list[int] = []
    for row in order[: WIDTH * num]:
        if len(chosen) < num and not (chosen and (embeddings[chosen] @ embeddings[row]).max() >= SAME_MEANING):
            chosen.append(row)
    taken = set(chosen)
    return chosen + [row for row in order if row not in taken][: num - len(chosen)]


def at_random(seed: int) -> Choice:
    """A choice that looks at nothing: what `choose` has over it is due to the student's doubts.

    Of as many texts the same ones are drawn; a pool has fewer of them after each step.
    """

    def draw(probabilities: Probabilities, _embeddings: np.ndarray, num: int) -> list[int]:
        rows = range(len(probabilities))
        return rng(seed, len(rows), "labels").sample(rows, min(num, len(rows)))

    return draw


def nearest(embeddings: np.ndarray, embedding: np.ndarray, num: int) -> list[int]:
    """The rows most like one, the most alike first.

    Args:
        embeddings: Shape (n_rows, width), each with a length of 1.
        embedding: Shape (width,), with a length of 1.
    """
    return [int(row) for row in np.argsort(-(embeddings @ embedding), kind="stable")[:num]]


def combined(prior: np.ndarray, answer: int, num_candidates: int, accuracy: float) -> np.ndarray:
    """What student and annotator think together, by Bayes' rule.

    Args:
        prior: The student's probabilities, shape (n_classes,).
        answer: The class that the annotator named.
        num_candidates: Among how many it chose.
        accuracy: How often it is right; where it errs, it takes each other candidate as often.
    Returns:
        Shape (n_classes,), sums to 1.
    """
    likelihood = np.full(len(prior), (1 - accuracy) / max(num_candidates - 1, 1))
    likelihood[answer] = accuracy
    posterior = prior * likelihood
    return np.asarray(posterior / posterior.sum())


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """How the teacher labels training rows whose label is hidden from it, of those that the other rows leave in doubt.

    Attributes:
        rows_alone: Accuracy of what the other rows say, in [0, 1].
        teacher: Accuracy of the teacher.
        together: Accuracy of both.
        weight: The teacher's accuracy where it names a class, as it counts: drawn a little towards one half.
    """

    n_rows: int
    rows_alone: float
    teacher: float
    together: float
    weight: float

    @property
    def is_of_use(self) -> bool:
        """Whether the teacher's word makes the labels better."""
        return self.together > self.rows_alone

    def __str__(self) -> str:
        sentence = (
            f"of {self.n_rows} labelled rows in doubt the teacher names {self.teacher:.0%} right, the other rows alone "
            f"{self.rows_alone:.0%}, both together {self.together:.0%}"
        )
        return sentence if self.is_of_use else f"{sentence}: its labels would not help, and it is asked for none"


SCALES = np.geomspace(2, 60, 30)
"""Tried as the factor between a cosine and a logit."""


def left_out(embeddings: np.ndarray, labels: np.ndarray, names: np.ndarray) -> Probabilities:
    """What the other rows say of each: softmax over cosines to the mean of each class's rows and its name.

    Args:
        embeddings: Of the rows, shape (n_rows, width), each with a length of 1.
        labels: Class ids, shape (n_rows,).
        names: Embeddings of texts about the classes, shape (n_classes, width).
    """
    sums = names.copy()
    np.add.at(sums, labels, embeddings)
    cosines = embeddings @ _unit(sums).T
    rows = np.arange(len(labels))
    cosines[rows, labels] = (_unit(sums[labels] - embeddings) * embeddings).sum(1)
    candidates = [_softmax(scale * cosines) for scale in SCALES]
    return min(candidates, key=lambda found: -float(np.log(found[rows, labels] + 1e-12).mean()))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
