"""What is told while a run goes: to the terminal, to trackers, to the run directory, all in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pgkd_agent.loop.protocols import Asked
from pgkd_agent.types import StepRecord

if TYPE_CHECKING:
    from pgkd_agent.runs.summary import RunResult
    from pgkd_agent.teacher.calls.estimates import Estimate


class Observer:
    """Override what is of interest; here nothing is done. What an observer raises ends the run."""

    def on_estimate(self, estimate: Estimate) -> None:
        """At the start, and again with the first real prompts, before they are sent."""

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        """After each epoch of a fit."""

    def on_plan(self, prompts: Sequence[int]) -> None:
        """Before a teacher's first requests are sent; `prompts` has the tokens of each."""

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        """After each request to the teacher."""

    def on_transcript(self, kd_step: int, messages: Sequence[Mapping[str, Any]]) -> None:
        """After each conversation of an agent."""

    def on_samples(self, asked: Asked) -> None:
        """After the samples of a KD step were screened, before the student is trained on them."""

    def on_step(self, record: StepRecord) -> None:
        """After each model's evaluation, while the student still is that model."""

    def on_test(self, n_rows: int) -> None:
        """Before the test rows are predicted."""

    def on_result(self, result: RunResult) -> None:
        """In the end."""


class Observers(Observer):
    """Tells several, in their order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def __getattribute__(self, name: str) -> Any:
        """Whatever the event, it goes to `_tell`."""
        return partial(self._tell, name) if name.startswith("on_") else super().__getattribute__(name)

    def _tell(self, event: str, *details: Any) -> None:
        for observer in self._observers:
            getattr(observer, event)(*details)
