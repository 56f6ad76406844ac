"""`pgkd samples`: the teacher's samples out of a run, and reviewed ones back in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import options
from pgkd_agent.text import counted

app = typer.Typer(name="samples", help="The teacher's samples as data: export, review, import.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Run directory.")]


@app.command()
def export(
    run: Run,
    out: Annotated[
        Path, typer.Option("--out", help="A .csv, .jsonl or .parquet file, or a folder in the layout of a hub dataset.")
    ],
) -> None:
    """Write all samples with their origin; rejected ones with the rule and the reason."""
    from pgkd_agent.runs.samples import export_samples

    counts = export_samples(run, out)
    typer.echo(f"{out}: {', '.join(f'{count} {status}' for status, count in sorted(counts.items()))}")


@app.command("import")
def import_(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Reviewed samples: text, label and, if there, status (accepted).")],
    out: options.Out = None,
) -> None:
    """Train again on the run's real rows and the approved samples, beside the plain student."""
    from pgkd_agent.cli.running import run_with_display
    from pgkd_agent.runs.samples import prepare_retraining

    retraining = prepare_retraining(run, file)
    typer.echo(f"{counted(len(retraining.teacher.samples), 'sample')} approved, {retraining.not_approved} not")
    run_with_display(
        retraining.stored.task, retraining.config, out or options.default_path("reviewed", file), retraining.teacher
    )
