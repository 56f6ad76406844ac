"""`pgkd report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="A run directory; two or more are held side by side.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page.", show_default="report.html in the run, else comparison.html"),
    ] = None,
) -> None:
    """Write the page of a run, or of several runs side by side.

    A run writes its report.html itself, anew after every step; this makes it again, for example after an update.
    """
    from pgkd_agent.runs.report import COMPARISON, write_comparison, write_report

    page = write_report(runs[0], out) if len(runs) == 1 else write_comparison(runs, out or Path(COMPARISON))
    typer.echo(page)
