"""Which texts of a pool are worth a label: those that the student is least sure of, and no two alike."""

from __future__ import annotations

from collections.abc import Callable

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
