"""A small line chart as coordinates for an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 26
"""Margins around the plot, in the units of the view box."""
TICKS = 3


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    value: float
    step: int
    is_best: bool


@dataclass(frozen=True)
class Chart:
    """One line over the KD steps; `line` is the `points` of an SVG polyline, `plain` the height of step 0."""

    title: str
    points: Sequence[Point]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT

    @property
    def plain(self) -> float:
        return self.points[0].y

    @property
    def line(self) -> str:
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


def line_chart(title: str, values: Sequence[float], best: int) -> Chart:
    """
    Args:
        values: Of the steps from 0, at least one.
        best: The step to mark.
    """
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5
    last = max(len(values) - 1, 1)

    def x(step: int) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * step / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)

    every = -(-len(values) // 12)  # so that numbers do not touch
    levels = [low + (high - low) * number / (TICKS - 1) for number in range(TICKS)]
    return Chart(
        title,
        [Point(x(step), y(value), value, step, step == best) for step, value in enumerate(values)],
        [Tick(x(step), str(step)) for step in range(0, len(values), every)],
        [Tick(y(level), f"{level:.3f}") for level in levels],
    )
