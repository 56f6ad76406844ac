"""Caps on what a teacher may cost: what a call could take is reserved before it is sent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pgkd_agent.config import BudgetSettings
from pgkd_agent.errors import BudgetExceededError, ConfigError
from pgkd_agent.prices import PriceTable
from pgkd_agent.types import TokenUsage

Settle = Callable[[TokenUsage], None]
"""Told what a call really took."""


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why a call cannot be sent; `may_pass`: perhaps it can when others have ended."""

    text: str
    may_pass: bool = True


class Budget:
    """What a run has spent, under its caps; may be shared by threads.

    Args:
        clock: Seconds, rising.
    """

    def __init__(
        self, settings: BudgetSettings, prices: PriceTable, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._caps = settings
        self._prices = prices
        self._clock = clock
        self._started = clock()
        self._changed = threading.Condition()
        self._under_way = 0
        self._calls = 0
        self._tokens = 0
        self._cost = 0.0
        self.seconds_to_leave = 0.0
        """Time that something after the last request will take; a fit, in a distillation."""

    @property
    def spent(self) -> str:
        """In words."""
        return f"{self._calls} calls, {self._tokens} tokens, {self._cost:.4f} {self._prices.currency}"

    def check(self, teacher: str) -> None:
        """
        Raises:
            ConfigError: There is a cap on money, and no price for this teacher.
        """
        if self._caps.max_usd is not None and self._prices.cost(teacher, TokenUsage()) is None:
            raise ConfigError(
                f"budget.max_usd needs a price for {teacher}, and the price table has none; add it to a table of your "
                "own (--set teacher.prices=FILE), or cap tokens instead (--max-tokens)"
            )

    def require_room(self, teacher: str, most: TokenUsage) -> None:
        """
        Raises:
            BudgetExceededError: The caps leave no room for such a call.
        """
        if objection := self._objection(most.input_tokens + most.output_tokens, self._cost_of(teacher, most)):
            raise BudgetExceededError(f"{objection.text}; raise the cap, or shorten prompt or replies")

    @contextmanager
    def reserved(self, teacher: str, most: TokenUsage) -> Iterator[Settle]:
        """Hold back what a call could take while it is under way.

        Waits for calls under way where what they hold back stands in the way. A call that ends without a settlement,
        as after a time-out, may have been worked on and billed: it counts in full.

        Args:
            most: Upper bounds for prompt and reply.
        Raises:
            BudgetExceededError: It could exceed a cap; nothing is reserved.
        """
        held_tokens = most.input_tokens + most.output_tokens
        held_cost = self._cost_of(teacher, most)
        with self._changed:
            while objection := self._objection(held_tokens, held_cost):
                if self._under_way == 0 or not objection.may_pass:
                    raise BudgetExceededError(objection.text)
                self._changed.wait()
            self._under_way += 1
            self._add(1, held_tokens, held_cost)

        def settle(used: TokenUsage) -> None:
            with self._changed:
                tokens = used.input_tokens + used.output_tokens
                self._add(0, tokens - held_tokens, self._cost_of(teacher, used) - held_cost)

        try:
            yield settle
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def count(self, teacher: str, used: TokenUsage) -> None:
        """A call that was paid before, when this run was first under way."""
        with self._changed:
            self._add(1, used.input_tokens + used.output_tokens, self._cost_of(teacher, used))

    def _add(self, calls: int, tokens: int, cost: float) -> None:
        self._calls += calls
        self._tokens += tokens
        self._cost += cost

    def _cost_of(self, teacher: str, usage: TokenUsage) -> float:
        return self._prices.cost(teacher, usage) or 0.0

    def _objection(self, tokens: int, cost: float) -> _Objection | None:
        caps = self._caps
        left = math.inf if caps.max_minutes is None else caps.max_minutes * 60 - (self._clock() - self._started)
        if left <= self.seconds_to_leave:
            fit = f", and a fit takes {self.seconds_to_leave:.0f} s" if self.seconds_to_leave else ""
            return _Objection(f"budget.max_minutes is {caps.max_minutes:g}: {max(left, 0):.0f} s are left{fit}", False)
        if caps.max_calls is not None and self._calls >= caps.max_calls:
            return _Objection(f"budget.max_calls is {caps.max_calls}, and as many were made", False)
        if caps.max_tokens is not None and self._tokens + tokens > caps.max_tokens:
            return _Objection(
                f"budget.max_tokens is {caps.max_tokens}: {self._tokens} are spent, and the next call may take {tokens}"
            )
        if caps.max_usd is not None and self._cost + cost > caps.max_usd:
            return _Objection(
                f"budget.max_usd is {caps.max_usd:g}: {self._cost:.4f} are spent, and the next call may cost {cost:.4f}"
            )
        return None
