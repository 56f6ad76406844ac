"""`pgkd prompts`: list, show, check and render the prompt variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pgkd_agent.cli import options
from pgkd_agent.cli.groups import grouped
from pgkd_agent.errors import PromptError
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.teacher.prompting import templates

app = typer.Typer(name="prompts", help="Prompt variants of the teacher.", no_args_is_help=True)

Variant = Annotated[str, typer.Argument(help="Name of a variant, or a path to a .j2 template.")]
Description = Annotated[str | None, typer.Option(help="What the texts are; tells the teacher the task.")]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Folder of your own, laid out like prompts/, that comes before the package's."),
]
Purpose = Annotated[
    Literal["pgkd", "zero_shot", "annotate"] | None,
    typer.Option(help="What the variant is for; a template by path is to write samples unless this says otherwise."),
]


@app.command("list")
def list_(folder: Folder = None) -> None:
    """Print the variants of each purpose, their requests and the variables they use."""
    from pgkd_agent.teacher.prompting import templates

    for purpose in templates.VARIABLES:
        for name in templates.list_prompts(purpose, folder):
            template = templates.load_prompt(name, purpose, folder)
            used = ", ".join(sorted(template.variables))
            typer.echo(f"{purpose:<10} {name:<18} one request per {_unit(template)}; uses {used}")


@app.command()
def show(variant: Variant, folder: Folder = None, purpose: Purpose = None) -> None:
    """Print the template as it is."""
    from pgkd_agent.teacher.prompting import templates

    typer.echo(templates.read_prompt(variant, _purpose_of(variant, folder, purpose), folder).source, nl=False)


@app.command()
def lint(
    variants: Annotated[
        list[str] | None, typer.Argument(help="Names of variants, or paths to .j2 templates; none: all there are.")
    ] = None,
    folder: Folder = None,
    purpose: Purpose = None,
) -> None:
    """Check templates for syntax, unknown and missing variables, and by rendering them with made-up values."""
    from pgkd_agent.teacher.prompting import templates
    from pgkd_agent.teacher.prompting.linting import lint_prompt

    purposes = [purpose] if purpose else list(templates.VARIABLES)
    named = [(_purpose_of(name, folder, purpose), name) for name in variants or ()] or [
        (one, name) for one in purposes for name in templates.list_prompts(one, folder)
    ]
    errors = 0
    for one, name in named:
        findings = lint_prompt(name, one, folder)
        for finding in findings:
            typer.echo(f"{one} {name}: {'error' if finding.is_error else 'note'}: {finding.message}")
        if not findings:
            typer.echo(f"{one} {name}: ok")
        errors += sum(finding.is_error for finding in findings)
    if errors:
        raise PromptError(f"found {counted(errors, 'error')} in the templates; see the lines above")
    typer.echo(f"{counted(len(named), 'template')}, no errors")


@app.command()
@grouped
def render(
    *,
    variant: Variant,
    data: options.Data,
    description: Description = None,
    folder: Folder = None,
    reading: options.Reading,
    sources: options.Sources,
) -> None:
    """Print the prompt as the first request would send it, with placeholders for the student's results."""
    from pgkd_agent.cli.running import show_dry_run

    more = {"teacher.prompt": variant, "teacher.prompt_folder": folder, "data.task_description": description}
    settings = options.settings_of(data, reading, sources, more=more)
    show_dry_run(data.task(settings), settings, asks=False)


def _purpose_of(variant: str, folder: Path | None, given: templates.Purpose | None) -> templates.Purpose:
    """That of the option, else of the name."""
    from pgkd_agent.teacher.prompting import templates

    if given:
        return given
    is_known = variant in templates.list_prompts("annotate", folder)
    return "annotate" if is_known and variant not in templates.list_prompts("pgkd", folder) else "pgkd"


def _unit(template: templates.PromptTemplate) -> str:
    if template.is_per_class:
        return "pair of classes" if template.is_pairwise else "class"
    return "step" if template.purpose == "pgkd" else "text"
