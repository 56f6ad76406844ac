"""`pgkd eval`: evaluations of what is swapped, against held-out metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.compare import names_of, progress_on, write_results
from pgkd_agent.cli.stopping import SAME_COMMAND, going_on
from pgkd_agent.config import nested_settings
from pgkd_agent.errors import ConfigError

if TYPE_CHECKING:
    from pgkd_agent.experiments.prompt_evals import PromptSuite

app = typer.Typer(name="eval", help="Evaluate prompts by what students make of them.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Keeps `prompts` a command of its own."""


@app.command()
def prompts(
    suite: Annotated[Path, typer.Argument(help="Suite (YAML), e.g. evals/prompts/small.yaml.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for runs and results; one that is there is gone on with.")],
    data: options.DataFolder = None,
    datasets: Annotated[str | None, typer.Option("--datasets", help="Only these, e.g. huffpost,banking77.")] = None,
    variants: Annotated[str | None, typer.Option("--variants", help="Only these, e.g. paper,per_class.")] = None,
    set_: options.Set = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Run nothing: evaluate what is there, without a call.")
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="An earlier results.json to hold the scores against.")
    ] = None,
    fail_under: Annotated[
        float | None,
        typer.Option("--fail-under", min=0, help="With --baseline: how much lower a score may be.", show_default="0"),
    ] = None,
) -> None:
    """Compare prompt variants: what the teacher writes, and students trained on it, on test rows.

    Variants that label texts (`purpose: annotate` in the suite) are compared on training rows whose label they are not
    shown. Writes results.json and results.md. Ends with exit code 1 where something could not be measured, or where a
    score (readable, accepted, accuracy, F1, right) is lower than in the baseline by more than --fail-under.
    """
    from pgkd_agent.experiments import prompt_evals

    if fail_under is not None and baseline is None:
        raise ConfigError("--fail-under needs a --baseline to hold the scores against")
    if baseline and baseline.resolve() == (out / "results.json").resolve():
        raise ConfigError(f"{baseline} is written anew by this command; keep the baseline elsewhere")
    before = prompt_evals.read_baseline(baseline) if baseline else None
    read, console = prompt_evals.read_suite(suite), terminal.notes()
    chosen = names_of(datasets), names_of(variants), nested_settings(set_ or ())
    evaluated = _labelled if read.purpose == "annotate" else _written
    with going_on(lambda: SAME_COMMAND):
        record, text, is_whole = evaluated(read, chosen, data, out, console, recorded)
    write_results(out, {"results.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n", "results.md": text})
    terminal.echo(text)
    lost = prompt_evals.losses_against(before, record, fail_under or 0.0) if before else []
    for loss in lost:
        terminal.say(console, f"lower than in {baseline}: {loss}")
    if lost or not is_whole:
        raise typer.Exit(1)


Chosen = tuple[list[str], list[str], dict[str, Any]]
"""Datasets, variants, and settings that come before those of the suite."""
Evaluated = tuple[dict[str, Any], str, bool]
"""As JSON, as Markdown, and whether everything could be measured."""


def _written(
    suite: PromptSuite, chosen: Chosen, data: Path | None, out: Path, console: Console, recorded: bool
) -> Evaluated:
    from pgkd_agent.experiments.prompt_evals import evaluate_prompts, to_comparison, to_json, to_markdown

    plan = to_comparison(suite, *chosen)
    grid, results = evaluate_prompts(suite, plan, data, out, progress_on(console, plan, recorded), recorded)
    is_whole = not grid.failures and not any(result.failures for result in results)
    return to_json(suite, plan, grid, results), to_markdown(suite, plan, grid, results), is_whole


def _labelled(
    suite: PromptSuite, chosen: Chosen, data: Path | None, out: Path, console: Console, recorded: bool
) -> Evaluated:
    from pgkd_agent.experiments.prompt_evals import (
        evaluate_labelling,
        labelling_to_json,
        labelling_to_markdown,
        part_of,
    )

    part = part_of(suite, *chosen)
    results = evaluate_labelling(part, data, out, lambda sentence: terminal.say(console, sentence), recorded)
    is_whole = not any(result.failures for result in results)
    return labelling_to_json(part, results), labelling_to_markdown(part, results), is_whole
