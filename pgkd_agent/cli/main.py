"""The application, its error handling and its log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pgkd_agent import version
from pgkd_agent.cli import (
    annotate,
    bench,
    classify,
    compare,
    datasets,
    distill,
    doctor,
    eval_prompts,
    evaluate,
    export,
    models,
    prompts,
    push,
    report,
    samples,
    schemas,
    serve,
    stopping,
    terminal,
    train,
    ui,
)
from pgkd_agent.cli.groups import Command, as_options
from pgkd_agent.errors import PGKDError
from pgkd_agent.text import without_controls

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how threads of OpenMP wait for each other."""

app = typer.Typer(
    name="pgkd",
    help="Performance-guided knowledge distillation: an LLM teaches a small text classifier.\n\n"
    "Exit codes: 0 done, 1 a part of the result is missing or worse, 2 input or settings, 3 teacher, "
    "4 training diverged, 5 disk, 130 Ctrl-C, 143 SIGTERM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PANELS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Train": (distill.distill, train.train, annotate.annotate, samples.app),
    "Use a model": (classify.classify, evaluate.evaluate, serve.serve, export.export, push.push),
    "Look": (ui.ui, report.report, prompts.app, doctor.doctor, models.app, datasets.datasets, schemas.schema),
    "Compare": (compare.compare, eval_prompts.app, bench.app),
}
for panel, commands in PANELS.items():
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command, rich_help_panel=panel)
        else:
            app.command(cls=Command, rich_help_panel=panel)(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version.VERSION)
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only results, warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="More of what goes on, with times.")] = False,
) -> None:
    terminal.set_verbosity(quiet, verbose)


def main() -> None:
    """Entry point: an error we raise on purpose becomes one readable block and its exit code."""
    if not any(name in os.environ for name in WAITING):
        # Threads that spin take the time of what else runs here. Read once, when a command imports torch.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    terminal.open_output()
    stopping.answer_signals()
    console = terminal.errors()
    try:
        app()
    except PGKDError as error:
        console.print("[bold red]error[/]: ", end="")
        console.print(without_controls(as_options(str(error))), markup=False, highlight=False)
        _end(console, error, error.exit_code)
    except stopping.Stopped as stopped:
        _end(console, stopped, stopped.code)


def _end(console: Console, cause: BaseException, code: str | int | None) -> NoReturn:
    for note in getattr(cause, "__notes__", ["stopped"] if isinstance(cause, stopping.Stopped) else []):
        terminal.say(console, note)
    sys.exit(code)
