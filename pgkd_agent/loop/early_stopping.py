"""Patience on the validation loss, for the KD steps and for the epochs inside a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pgkd_agent.errors import StudentDivergedError


@dataclass
class EarlyStopping:
    """Track the lowest loss (Algorithm 1, lines 10-18).

    Three departures from the letter of the algorithm, after its prose: the counter starts again when
    the loss improves ("does not improve consecutively"), a tie is no improvement, and a loss that is
    not finite is an error instead of a new best.

    Args:
        patience: Bad results in a row that are tolerated; one more sets `should_stop`. >= 0.
    """

    patience: int
    best_loss: float = math.inf
    best_index: int = -1
    counter: int = 0

    def update(self, index: int, loss: float) -> bool:
        """Take the loss of step or epoch `index`; return whether it is the lowest so far.

        Raises:
            StudentDivergedError: The loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise StudentDivergedError(
                f"the validation loss became {loss} (step or epoch {index}); try a lower learning rate, "
                "for example `student.learning_rate=1e-5`"
            )
        if loss < self.best_loss:
            self.best_loss, self.best_index, self.counter = loss, index, 0
            return True
        self.counter += 1
        return False

    @property
    def should_stop(self) -> bool:
        return self.counter > self.patience
