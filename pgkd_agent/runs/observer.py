"""What is told while a run goes: the terminal, trackers and the run directory, all in the same way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from pgkd_agent.loop.observer import LoopObserver
from pgkd_agent.runs.summary import RowPrediction, RunResult
from pgkd_agent.teacher.calls.estimates import Estimate


class Observer(LoopObserver):
    """Override what is of interest; here nothing is done. What an observer raises ends the run."""

    def on_estimate(self, estimate: Estimate) -> None:
        """At the start, and again with the first real prompts, before they are sent."""

    def on_test(self, n_rows: int) -> None:
        """Before the test rows are predicted."""

    def on_predictions(self, predictions: Sequence[RowPrediction]) -> None:
        """Of the test rows, in their order; in the end, before the result. None without test rows."""

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
