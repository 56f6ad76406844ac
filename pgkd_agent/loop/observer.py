"""What is told while Algorithm 1 goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgkd_agent.loop.protocols import Asked
from pgkd_agent.loop.trust import GoldCheck
from pgkd_agent.types import StepRecord


class LoopObserver:
    """The events of the loop, its student and its teacher; here nothing is done."""

    def on_phase(self, kd_step: int, what: str) -> None:
        """Before a part of a step that may take long; `what` is for people, such as "asking the teacher"."""

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        """After each epoch of a fit."""

    def on_plan(self, prompts: Sequence[int]) -> None:
        """Before a teacher's first requests are sent; `prompts` has the tokens of each."""

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        """After each request to the teacher."""

    def on_wait(self, what: str) -> None:
        """While a batch job of the teacher's provider is awaited; `what` says, for people, how far it is."""

    def on_gold(self, check: GoldCheck) -> None:
        """After the teacher labelled training rows whose label is known, before it labels other texts."""

    def on_transcript(self, kd_step: int, messages: Sequence[Mapping[str, Any]]) -> None:
        """After each conversation of an agent."""

    def on_samples(self, asked: Asked) -> None:
        """After the samples of a KD step were screened, before the student is trained on them."""

    def on_step(self, record: StepRecord) -> None:
        """After each model's evaluation, while the student still is that model."""
