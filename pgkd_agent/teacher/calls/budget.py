"""Caps on what a teacher may cost: what a call could take is reserved before it is sent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pgkd_agent.config import BudgetSettings
from pgkd_agent.errors import BudgetExceededError, ConfigError
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.types import TokenUsage

Settle = Callable[[TokenUsage | None], None]
"""Told what a call really took; None where it was not sent."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls, tokens in and out, and their cost in the price table's currency, where prices are known."""

    calls: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why a call cannot be sent; `may_pass`: perhaps it can when others have ended."""

    text: str
    may_pass: bool = True


class Budget:
    """What a run has spent, under its caps; may be shared by threads.

    Args:
        cache_counts: Whether a reply from the cache that runs share counts as if it had been sent, against the caps and
            in what is reported: for comparisons, whose methods share replies.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        prices: PriceTable,
        cache_counts: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cache_counts = cache_counts
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
    def spent(self) -> Spent:
        """So far, with all that calls under way could take."""
        with self._changed:
            return Spent(self._calls, self._tokens, self._cost)

    @property
    def seconds_left(self) -> float:
        """Until the last moment for a request; infinite without a cap on time."""
        caps = self._caps
        left = math.inf if caps.max_minutes is None else caps.max_minutes * 60 - (self._clock() - self._started)
        return left - self.seconds_to_leave

    def check(self, teacher: str, has_reply_limit: bool = True, has_retries: bool = False) -> None:
        """
        Args:
            has_reply_limit: Whether its replies have a longest length.
            has_retries: Whether its client sends a call again by itself, unseen.
        Raises:
            ConfigError: A cap that cannot be kept with this teacher.
        """
        caps = self._caps
        if caps.max_usd is not None and self._prices.cost(teacher, TokenUsage()) is None:
            raise ConfigError(
                f"budget.max_usd needs a price for {teacher}, and the price table has none; add it to a table of your "
                "own (`teacher.prices=FILE`), or cap tokens instead (`budget.max_tokens`)"
            )
        limits_tokens = (caps.max_usd, caps.max_tokens) != (None, None)
        if limits_tokens and not has_reply_limit:
            raise ConfigError(
                f"a cap on tokens or money cannot be kept with {teacher}, whose replies have no limit; build the chat "
                "model with one, such as max_tokens=2048"
            )
        if (limits_tokens or caps.max_calls is not None) and has_retries:
            raise ConfigError(
                f"the budget's caps cannot be kept with {teacher}, which sends calls again by itself; build the chat "
                "model with max_retries=0, retries are made here"
            )

    def require_room(self, teacher: str, most: TokenUsage, calls: int = 1) -> None:
        """
        Args:
            calls: This one, and others before it of which each takes less.
        Raises:
            BudgetExceededError: The caps leave no room for such a call.
        """
        if objection := self._objection(most.input_tokens + most.output_tokens, self._cost_of(teacher, most), calls):
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

        def settle(used: TokenUsage | None) -> None:
            self.adjust(teacher, most, used)

        try:
            yield settle
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def hold(self, teacher: str, most: TokenUsage) -> None:
        """As `reserved`, until `adjust` is told what the call took; for a call beside others that are not awaited.

        Raises:
            BudgetExceededError: It could exceed a cap; nothing is reserved.
        """
        tokens, cost = most.input_tokens + most.output_tokens, self._cost_of(teacher, most)
        with self._changed:
            if objection := self._objection(tokens, cost):
                raise BudgetExceededError(objection.text)
            self._add(1, tokens, cost)

    def adjust(self, teacher: str, held: TokenUsage, used: TokenUsage | None) -> None:
        """Replace what a call held back, or was counted with, by what it took.

        Args:
            used: None where it was not sent.
        """
        taken = used or TokenUsage()
        tokens = taken.input_tokens + taken.output_tokens - held.input_tokens - held.output_tokens
        with self._changed:
            self._add(-1 if used is None else 0, tokens, self._cost_of(teacher, taken) - self._cost_of(teacher, held))

    def count(self, charged: Iterable[tuple[str, int, TokenUsage]]) -> None:
        """Calls that were made before, when this run was first under way.

        Args:
            charged: Teacher, number of its calls, what they took together.
        """
        with self._changed:
            for teacher, calls, used in charged:
                self._add(calls, used.input_tokens + used.output_tokens, self._cost_of(teacher, used))

    def _add(self, calls: int, tokens: int, cost: float) -> None:
        self._calls += calls
        self._tokens += tokens
        self._cost += cost

    def _cost_of(self, teacher: str, usage: TokenUsage) -> float:
        return self._prices.cost(teacher, usage) or 0.0

    def _objection(self, tokens: int, cost: float, calls: int = 1) -> _Objection | None:
        caps = self._caps
        if self.seconds_left <= 0:
            left = max(self.seconds_left + self.seconds_to_leave, 0)
            fit = f", and the fits to come take {self.seconds_to_leave:.0f} s" if self.seconds_to_leave else ""
            return _Objection(f"budget.max_minutes is {caps.max_minutes:g}: {left:.0f} s are left{fit}", False)
        if caps.max_calls is not None and self._calls + calls > caps.max_calls:
            needed = f", and {calls} are needed at least" if calls > 1 else ""
            return _Objection(f"budget.max_calls is {caps.max_calls}: {self._calls} were made{needed}", False)
        if caps.max_tokens is not None and self._tokens + tokens > caps.max_tokens:
            return _Objection(
                f"budget.max_tokens is {caps.max_tokens}: {self._tokens} are spent, and the next call may take {tokens}"
            )
        if caps.max_usd is not None and self._cost + cost > caps.max_usd:
            return _Objection(
                f"budget.max_usd is {caps.max_usd:g}: {self._cost:.4f} are spent, and the next call may cost {cost:.4f}"
            )
        return None
