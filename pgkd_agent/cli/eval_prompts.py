"""`pgkd eval`: evaluations of what is swapped, against held-out metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.compare import names_of, progress_on, write_results
from pgkd_agent.cli.stopping import SAME_COMMAND, going_on
from pgkd_agent.config import nested_settings
from pgkd_agent.errors import ConfigError

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

    Writes results.json and results.md. Ends with exit code 1 where something could not be measured, or where a score
    (readable, accepted, accuracy, F1) is lower than in the baseline by more than --fail-under.
    """
    from pgkd_agent.experiments import prompt_evals

    if fail_under is not None and baseline is None:
        raise ConfigError("--fail-under needs a --baseline to hold the scores against")
    if baseline and baseline.resolve() == (out / "results.json").resolve():
        raise ConfigError(f"{baseline} is written anew by this command; keep the baseline elsewhere")
    before = prompt_evals.read_baseline(baseline) if baseline else None
    read = prompt_evals.read_suite(suite)
    plan = prompt_evals.to_comparison(read, names_of(datasets), names_of(variants), nested_settings(set_ or ()))
    console = terminal.notes()
    told = progress_on(console, plan, recorded)
    with going_on(lambda: SAME_COMMAND):
        grid, results = prompt_evals.evaluate_prompts(read, plan, data, out, told, recorded)
    record, text = prompt_evals.to_json(read, plan, grid, results), prompt_evals.to_markdown(read, plan, grid, results)
    write_results(out, {"results.json": json.dumps(record, indent=1, ensure_ascii=False) + "\n", "results.md": text})
    terminal.echo(text)
    lost = prompt_evals.losses_against(before, record, fail_under or 0.0) if before else []
    for loss in lost:
        terminal.say(console, f"lower than in {baseline}: {loss}")
    if lost or grid.failures or any(result.failures for result in results):
        raise typer.Exit(1)
