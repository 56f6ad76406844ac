"""A filled grid as a figure: methods side by side, or scores over the number of labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.experiments.compare.plan import ComparisonFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pgkd_agent.experiments.compare.tables import Line

PANEL = (4.2, 3.6)
"""Inches."""


def plot(plan: ComparisonFile, shown: Sequence[Line], metric: str, heading: str, file: Path) -> None:
    """Draw a panel for each source of rows; the suffix of the file says its format (png, svg, pdf).

    Where a source is there with several numbers of rows, scores are drawn over them (the paper's figure 3), else one
    below another. Whiskers are standard deviations over seeds, hollow marks the paper's figures.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the format; or there is nothing to draw.
        StorageError: The disk refuses.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'pgkd-agent[plot]'") from error
    if not shown:
        raise ConfigError("there is nothing to plot yet")
    sources = dict.fromkeys(_source(plan, line) for line in shown)
    panels = [(source, [line for line in shown if _source(plan, line) == source]) for source in sources]
    figure = Figure(figsize=(PANEL[0] * len(panels), PANEL[1]), layout="constrained")
    for number, (source, lines) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number, title=source)
        if len({line.dataset for line in lines}) > 1:
            _over_rows(axes, plan, lines, metric, heading)
        else:
            _side_by_side(axes, lines, metric, heading)
    try:
        figure.savefig(file, dpi=150)
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror or error}") from error


def _source(plan: ComparisonFile, line: Line) -> str:
    return plan.datasets[line.dataset].source or line.dataset


def _over_rows(axes: Axes, plan: ComparisonFile, lines: Sequence[Line], metric: str, heading: str) -> None:
    for entry in plan.methods:
        own = [line for line in lines if line.entry == entry]
        if not own:
            continue
        rows = [_rows_asked_for(plan, line) for line in own]
        means, deviations = _means(own, metric), _deviations(own, metric)
        drawn = axes.errorbar(rows, means, deviations, marker="o", capsize=3, label=entry)
        theirs = [(row, line.paper[metric]) for row, line in zip(rows, own, strict=True) if metric in line.paper]
        if theirs:
            axes.plot(*zip(*theirs, strict=True), "o--", color=drawn[0].get_color(), fillstyle="none")
    axes.set(xlabel="labelled rows", ylabel=heading, xscale="log")
    ticks = sorted({_rows_asked_for(plan, line) for line in lines})
    axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.legend()


def _side_by_side(axes: Axes, lines: Sequence[Line], metric: str, heading: str) -> None:
    places = range(len(lines))
    axes.errorbar(_means(lines, metric), places, xerr=_deviations(lines, metric), fmt="o", capsize=3)
    theirs = [(line.paper[metric], place) for place, line in enumerate(lines) if metric in line.paper]
    if theirs:
        axes.plot(*zip(*theirs, strict=True), "o", color="gray", fillstyle="none", label="in the paper")
        axes.legend()
    axes.set_yticks(places, labels=[line.entry for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(heading)
    axes.grid(axis="x", alpha=0.3)


def _means(lines: Sequence[Line], metric: str) -> list[float]:
    return [line.metrics[metric].mean for line in lines]


def _deviations(lines: Sequence[Line], metric: str) -> list[float]:
    return [line.metrics[metric].deviation or 0.0 for line in lines]


def _rows_asked_for(plan: ComparisonFile, line: Line) -> int:
    """As the settings say; where they say nothing, the rows trained on."""
    layers: list[dict[str, Any]] = [plan.overrides, plan.datasets[line.dataset].settings, plan.settings]
    named = [layer["data"]["rows"] for layer in layers if layer.get("data", {}).get("rows")]
    return int(named[0] if named else line.rows)
