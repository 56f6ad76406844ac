"""What a run will take of a teacher, before its first call: calls, tokens, money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.text import counted
from pgkd_agent.types import TokenUsage


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a run that uses all its KD steps; repeated requests are not in it.

    Attributes:
        input_tokens: Of all prompts: lowest and highest; the two are equal where the prompts are known.
        output_tokens: Of all replies: short samples, and replies as long as they may be.
        cost: Lowest and highest, None where the price is not known.
        batch: Whether batch jobs of the provider are asked, at their price.
    """

    calls: int
    input_tokens: tuple[int, int]
    output_tokens: tuple[int, int]
    cost: tuple[float, float] | None
    currency: str
    batch: bool = False

    def __str__(self) -> str:
        low, high = self.input_tokens
        tokens_in = f"{low}" if low == high else f"{low} to {high}"
        if self.cost is None:
            cost = "price not known"
        else:
            cost = f"{self.cost[0]:.4f} to {self.cost[1]:.4f} {self.currency}" if self.cost[1] else "no charge"
        cost += " by batch jobs" * self.batch
        low, high = self.output_tokens
        return f"{counted(self.calls, 'call')}, {tokens_in} tokens in, {low} to {high} out, {cost}"


def estimate_run(
    teachers: Sequence[str],
    kd_steps: int,
    least_prompts: Sequence[int],
    most_prompts: Sequence[int],
    replies: tuple[int, int],
    prices: PriceTable,
    batch: bool = False,
) -> Estimate:
    """Extrapolate one KD step.

    Args:
        teachers: Names in the price table; of several, the cheapest and the dearest set the range.
        least_prompts, most_prompts: Tokens of each prompt of a step, with as few and as many rows as there may be.
        replies: Tokens of all replies of a step, lowest and highest.
        batch: Whether batch jobs are asked.
    """
    tokens_in = (kd_steps * sum(least_prompts), kd_steps * sum(most_prompts))
    tokens_out = (kd_steps * replies[0], kd_steps * replies[1])
    least, most = (TokenUsage(*pair) for pair in zip(tokens_in, tokens_out, strict=True))
    if batch:
        least, most = least.in_batch(), most.in_batch()
    low = [prices.cost(teacher, least) for teacher in teachers]
    high = [prices.cost(teacher, most) for teacher in teachers]
    return Estimate(
        calls=kd_steps * len(most_prompts),
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cost=_ends(low, high),
        currency=prices.currency,
        batch=batch,
    )


def _ends(low: Sequence[float | None], high: Sequence[float | None]) -> tuple[float, float] | None:
    """From the cheapest to the dearest; None where one is not known."""
    known = [cost for cost in (*low, *high) if cost is not None]
    return (min(known), max(known)) if len(known) == len(low) + len(high) else None
