"""`pgkd compare`: methods against each other, as a YAML file says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import as_options
from pgkd_agent.cli.stopping import SAME_COMMAND, going_on
from pgkd_agent.config import nested_settings
from pgkd_agent.errors import ConfigError
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from pgkd_agent.experiments.compare import ComparisonFile, Progress


def compare(
    file: Annotated[Path, typer.Argument(help="Comparison (YAML), e.g. evals/tables/table2-small.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for cells and tables; one that is there is gone on with.")],
    data: options.DataFolder = None,
    datasets: Annotated[str | None, typer.Option("--datasets", help="Only these, e.g. huffpost,banking77.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Only these, e.g. plain,pgkd.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Instead of those of the file, e.g. 1,2.")] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Entry that differences are from, instead of that of the file.")
    ] = None,
    set_: options.Set = None,
    tables: Annotated[bool, typer.Option("--tables", help="Run nothing: tables of what is there.")] = False,
    metric: Annotated[
        str, typer.Option("--metric", help="Of the plot: accuracy, macro_f1 or weighted_f1.")
    ] = "accuracy",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Figure to draw, .png, .svg or .pdf; needs the extra 'plot'.")
    ] = None,
) -> None:
    """Compare methods over datasets and seeds; a comparison that was stopped goes on where it was.

    Writes results.json, results.csv (a row a cell) and results.md. Ends with exit code 1 where a cell failed; the
    tables then say which.
    """
    from pgkd_agent.experiments.compare import (
        fill,
        lines,
        narrowed,
        read_comparison,
        to_csv,
        to_json,
        to_markdown,
    )
    from pgkd_agent.experiments.compare.plot import plot as draw
    from pgkd_agent.experiments.compare.tables import HEADINGS

    overrides = nested_settings(set_ or ())
    plan = narrowed(read_comparison(file, baseline), names_of(datasets), names_of(methods), _numbers(seeds), overrides)
    if metric not in HEADINGS:
        raise ConfigError(f"metric {metric!r} is none of {', '.join(HEADINGS)}")
    with going_on(lambda: SAME_COMMAND):
        grid = fill(plan, data, out, progress_on(terminal.notes(), plan, tables), tables)
    text = to_markdown(plan, grid)
    contents = {
        "results.json": json.dumps(to_json(plan, grid), indent=1, ensure_ascii=False) + "\n",
        "results.csv": to_csv(grid),
        "results.md": text,
    }
    write_results(out, contents)
    terminal.echo(text)
    if plot:
        draw(plan, lines(plan, grid), metric, HEADINGS[metric], plot)
    if grid.failures:
        raise typer.Exit(1)


def names_of(text: str | None) -> list[str]:
    """Of an option with commas between."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _numbers(text: str | None) -> list[int]:
    try:
        return [int(part) for part in names_of(text)]
    except ValueError as error:
        raise ConfigError(f"--seeds {text}: expected whole numbers with commas between") from error


def progress_on(console: Console, plan: ComparisonFile, only_stored: bool) -> Callable[[Progress], None]:
    """Say what is to be done, and a line for each cell; nothing where nothing is run."""
    if only_stored:
        return lambda progress: None
    terminal.say(console, _what(plan))

    def say(progress: Progress) -> None:
        left = (
            "" if progress.seconds_left is None else f", about {timedelta(seconds=round(progress.seconds_left))} left"
        )
        state = f"failed: {as_options(progress.failure)}" if progress.failure else "done"
        line = f"{progress.number}/{progress.of} {progress.cell}: {state}{left}"
        terminal.say(console, line)

    return say


def _what(plan: ComparisonFile) -> str:
    from pgkd_agent.experiments.compare.plan import seeds_of

    number = len(plan.datasets) * sum(len(seeds_of(plan, name)) for name in plan.methods)
    hours = "" if plan.hours is None else f", about {plan.hours:g} hours"
    amounts = ", ".join(counted(len(getattr(plan, f"{each}s")), each) for each in ("method", "dataset", "seed"))
    return f"{counted(number, 'cell')}: {amounts}{hours}"


def write_results(out: Path, contents: Mapping[str, str]) -> None:
    """
    Raises:
        StorageError: The disk refuses.
    """
    from pgkd_agent.files import write_whole

    for name, content in contents.items():
        write_whole(out / name, content)
