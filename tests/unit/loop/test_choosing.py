from __future__ import annotations

import numpy as np
import pytest

from pgkd_agent.loop.choosing import at_random, choose, margins, nearest

UNIT = np.eye(4)


def test_the_margin_is_between_the_two_likeliest() -> None:
    assert margins(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])) == pytest.approx([0.2, 0.7])
    assert margins(np.array([[1.0]])) == pytest.approx([1.0])


def test_the_least_sure_come_first_and_no_two_that_mean_the_same() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.52, 0.48], [0.6, 0.4]])
    assert choose(probabilities, UNIT, 3) == [1, 2, 3]
    alike = np.stack([UNIT[0], UNIT[1], UNIT[1], UNIT[2]])
    assert choose(probabilities, alike, 3) == [1, 3, 0]
    assert choose(probabilities, alike, 9) == [1, 3, 0, 2]
    assert choose(probabilities, alike, 0) == []


def test_drawn_texts_are_the_same_ones_again_and_others_of_a_smaller_pool() -> None:
    doubts = np.random.default_rng(0).dirichlet([1, 1], 40)
    first = at_random(1)(doubts, np.eye(40), 10)
    assert first == at_random(1)(doubts[::-1], np.eye(40), 10) and len({*first}) == 10
    assert len({tuple(first), *(tuple(at_random(seed)(doubts, np.eye(40), 10)) for seed in (2, 3))}) == 3
    assert at_random(1)(doubts[:39], np.eye(40), 10) != first
    assert sorted(at_random(1)(doubts[:3], np.eye(3), 10)) == [0, 1, 2]


def test_the_nearest_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    assert nearest(rows, np.array([1.0, 0.0]), 2) == [0, 2]
    assert nearest(rows[:0], np.array([1.0, 0.0]), 2) == []
