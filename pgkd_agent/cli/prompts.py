"""`pgkd prompts`: list, show and render the prompt variants."""

from __future__ import annotations

from typing import Annotated

import typer

from pgkd_agent.cli import options
from pgkd_agent.config import build_config
from pgkd_agent.prompts import VARIABLES, list_prompts, load_prompt

app = typer.Typer(help="Prompt variants of the teacher.", no_args_is_help=True)

Variant = Annotated[str, typer.Argument(help="Name of a variant, or a path to a .j2 template.")]


@app.command("list")
def list_() -> None:
    """Print the variants of each purpose, their requests and the variables they use."""
    for purpose in VARIABLES:
        for name in list_prompts(purpose):
            template = load_prompt(name, purpose)
            kind = "step" if purpose == "pgkd" else "text"
            kind = "class" if template.is_per_class else kind
            typer.echo(f"{purpose:<10} {name:<10} one request per {kind}; uses {', '.join(sorted(template.variables))}")


@app.command()
def show(
    variant: Variant,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The variant for zero-shot classification.")] = False,
) -> None:
    """Print the template as it is."""
    typer.echo(load_prompt(variant, "zero_shot" if zero_shot else "pgkd").source, nl=False)


@app.command()
def render(
    variant: Variant,
    train: options.Train = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    labels: options.Labels = None,
    rows: options.Rows = None,
    seed: options.Seed = None,
    description: options.Description = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    set_: options.Set = None,
) -> None:
    """Print the prompt as the first request would send it, with placeholders for the student's results."""
    from pgkd_agent.cli.running import show_dry_run
    from pgkd_agent.pipeline import load_task

    flags = {
        "seed": seed,
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.rows": rows,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.task_description": description,
        "teacher.prompt": variant,
    }
    config = build_config(assignments=set_ or (), flags=flags)
    show_dry_run(load_task(train, None, None, labels, config), config)
