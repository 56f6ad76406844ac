"""Tables in Markdown, and how figures stand in them."""

from __future__ import annotations

from collections.abc import Sequence

from pgkd_agent.metrics.intervals import Difference, Spread

NOT_MEASURED = "-"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(map(_row, (headings, ["---"] * len(headings), *rows)))


def spread_text(value: Spread) -> str:
    return f"{value.mean:.3f}" + ("" if value.deviation is None else f" ± {value.deviation:.3f}")


def score_text(value: Spread, difference: Difference | None) -> str:
    """With the difference from the baseline and its interval in brackets."""
    text = spread_text(value)
    return f"{text} ({difference.mean:+.3f}: {difference.low:+.3f} to {difference.high:+.3f})" if difference else text


def cost_text(cost: float | None) -> str:
    return "not known" if cost is None else f"{cost:.2f}"


def seconds_text(seconds: float | None) -> str:
    return "not known" if seconds is None else f"{seconds:.2g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
