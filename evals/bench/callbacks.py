"""What the rivals on transformers' Trainer have in common."""

from __future__ import annotations

from transformers import TrainerCallback

from evals.bench.common import EpochClock


class EpochTicks(TrainerCallback):
    def __init__(self, clock: EpochClock) -> None:
        self._clock = clock

    def on_epoch_end(self, *_args: object, **_kwargs: object) -> None:
        self._clock.tick()
