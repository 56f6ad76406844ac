"""`pgkd prompts`: list, show and render the prompt variants."""

from __future__ import annotations

from typing import Annotated

import typer

from pgkd_agent.cli import options
from pgkd_agent.config import build_config
from pgkd_agent.prompts import list_prompts, load_prompt

app = typer.Typer(help="Prompt variants of the teacher.", no_args_is_help=True)

Variant = Annotated[str, typer.Argument(help="Name of a variant, or a path to a .j2 template.")]


@app.command("list")
def list_() -> None:
    """Print the variants, their requests and the variables they use."""
    for name in list_prompts():
        template = load_prompt(name)
        kind = "one request per class" if template.is_per_class else "one request per step"
        typer.echo(f"{name:<12} {kind}; uses {', '.join(sorted(template.variables))}")


@app.command()
def show(variant: Variant) -> None:
    """Print the template as it is."""
    typer.echo(load_prompt(variant).source, nl=False)


@app.command()
def render(
    variant: Variant,
    train: options.Train,
    labels: options.Labels = None,
    rows: options.Rows = None,
    seed: options.Seed = None,
    description: Annotated[str | None, typer.Option("--description", help="What the texts are.")] = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    set_: options.Set = None,
) -> None:
    """Print the prompt as the first request would send it, with placeholders for the student's results."""
    from pgkd_agent.cli.running import show_dry_run
    from pgkd_agent.pipeline import load_task

    flags = {
        "seed": seed,
        "data.rows": rows,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.task_description": description,
        "teacher.prompt": variant,
    }
    config = build_config(assignments=set_ or (), flags=flags)
    show_dry_run(load_task(train, None, None, labels, config), config)
