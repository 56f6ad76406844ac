"""Whether a gain on the validation rows is more than luck, said without further rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
FEWEST_ROWS = 20
"""With fewer a bootstrap knows too little of the spread to be trusted."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class GainSupport:
    """What choosing the model by validation loss gains over the plain student, on rows that did not choose.

    Attributes:
        mean, low, high: Fall of the mean log loss in nats, above 0 where the choice is better; bounds of its
            interval.
        is_supported: The interval is above 0, and of enough rows.
    """

    mean: float
    low: float
    high: float
    is_supported: bool


def gain_support(losses: Sequence[Sequence[float]] | np.ndarray, best: int, seed: int) -> GainSupport:
    """Bootstrap over validation rows, the choice of the model included.

    The lowest of several losses on the same rows flatters its model. So each resample chooses anew, on rows drawn
    with replacement, and the model it chose is held against the plain student on the rows that were not drawn: the
    mean is that of these gains (the bias correction of Tsamardinos et al. 2018). The interval has the width of the
    paired bootstrap of the model that was kept. Which epoch each fit ended with was chosen on all of the rows, for the
    plain student as for the others.

    Args:
        losses: Of each validation row in nats, by each model; the plain student first. Shape (n_models, n_rows).
        best: The model that was kept.
        seed: Of the resamples.
    """
    table = np.asarray(losses, dtype=float)
    gains, n_rows = table[0] - table, table.shape[1]
    rng = np.random.default_rng(seed)
    unseen, kept = [], []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(n_rows, size=n_rows), minlength=n_rows)
        left = drawn == 0
        chosen = (gains @ drawn).argmax()
        if left.any():  # of very few rows sometimes none is
            unseen.append(gains[chosen, left].mean())
        kept.append(gains[best] @ drawn / n_rows)
    if not unseen:
        return GainSupport(0.0, 0.0, 0.0, False)
    mean = float(np.mean(unseen))
    low, high = mean + np.quantile(kept, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - np.mean(kept)
    return GainSupport(mean, float(low), float(high), bool(low > 0 and n_rows >= FEWEST_ROWS))
