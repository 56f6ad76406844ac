"""Whether a gain is more than luck: rates over many validation sets whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from pgkd_agent.metrics.intervals import gain_support

ROWS, MODELS, SETS = 200, 11, 100


def supported(gain: float) -> float:
    """Share of simulated runs whose gain counts as supported, all models but the plain one better by `gain` nats.

    Losses of a row go together over models (easy and hard rows), as those of refits do.
    """
    rng = np.random.default_rng(0)
    found = 0
    for number in range(SETS):
        rows = rng.exponential(1.0, size=ROWS)
        losses = rows + rng.normal(0.0, 0.4, size=(MODELS, ROWS))
        losses[1:] -= gain
        found += gain_support(losses, int(losses.mean(axis=1).argmin()), number).is_supported
    return found / SETS


def test_the_best_of_models_that_are_all_alike_is_seldom_supported() -> None:
    assert supported(0.0) <= 0.05


def test_a_real_gain_is_nearly_always_supported() -> None:
    assert supported(0.15) >= 0.95


def test_the_mean_has_no_flattery_in_it() -> None:
    rng = np.random.default_rng(1)
    naive, honest = [], []
    for number in range(SETS):
        losses = rng.normal(1.0, 0.4, size=(MODELS, ROWS))
        best = int(losses.mean(axis=1).argmin())
        naive.append(float((losses[0] - losses[best]).mean()))
        honest.append(gain_support(losses, best, number).mean)
    assert np.mean(naive) > 0.03 and abs(np.mean(honest)) < 0.01


def test_a_kept_plain_student_gains_nothing() -> None:
    losses = np.array([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])
    support = gain_support(losses, 0, 0)
    assert (support.mean, support.low, support.high) == (0.0, 0.0, 0.0) and not support.is_supported


@pytest.mark.parametrize("rows", [1, 2, 5, 10])
def test_few_rows_support_nothing(rows: int) -> None:
    """However clear they seem: of two rows with the same gain a bootstrap sees no spread at all."""
    losses = np.stack([np.ones(rows), np.full(rows, 0.9)])
    assert not gain_support(losses, 1, 0).is_supported


def test_the_same_seed_says_the_same() -> None:
    losses = np.random.default_rng(2).normal(1.0, 0.4, size=(3, 50))
    assert gain_support(losses, 1, 5) == gain_support(losses, 1, 5)
