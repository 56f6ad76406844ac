"""`pgkd annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.display import say_gold
from pgkd_agent.cli.groups import grouped
from pgkd_agent.cli.stopping import going_on, going_on_with
from pgkd_agent.cli.terminal import say
from pgkd_agent.loop.trust import GoldCheck
from pgkd_agent.text import counted


@grouped
def annotate(
    *,
    run: Annotated[Path, typer.Argument(help="Run directory, whose model chooses the texts.")],
    file: Annotated[Path, typer.Argument(help="Texts (CSV, TSV, JSONL, Parquet, TXT).")],
    teacher: Annotated[str, typer.Option(help="local:smollm2, local:/path.gguf, openai:NAME or provider:NAME.")],
    labels: Annotated[int, typer.Option(min=0, help="Most texts to label; 0 only checks the teacher.")] = 100,
    text_column: options.TextColumn = None,
    server: options.Server,
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .jsonl or .parquet file.", show_default="runs/annotated-FILE-TIME.csv")
    ] = None,
    batch: options.Batch,
    caps: options.Caps,
    sources: options.Sources,
) -> None:
    """Have a teacher label the texts that a run's model is least sure of, into a table to review.

    First it labels training rows whose label it is not shown, and says how many are right. A person may correct the
    table; `pgkd samples import RUN TABLE` trains on it. The same command with the same --out goes on where it was
    stopped, without paying a call twice.
    """
    from pgkd_agent.answering.annotating import annotate as label_texts
    from pgkd_agent.answering.annotating import as_rows
    from pgkd_agent.runs.samples import check_table, write_table

    more = {"teacher.spec": teacher, "data.text_column": text_column}
    settings = options.settings_of(server, batch, caps, sources, more=more)
    out = out or options.default_path("annotated", file).with_suffix(".csv")
    check_table(out)  # before a call is paid
    calls = out.with_name(f"{out.name}.calls.sqlite")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        going_on(lambda: going_on_with(out)),
        Progress(*columns, console=terminal.notes(), transient=True) as progress,
    ):
        bar = progress.add_task("loading", total=labels or 1)

        def show(_kd_step: int, answered: int, planned: int) -> None:
            progress.update(bar, description="asking", completed=answered, total=planned)

        log = terminal.Log(terminal.notes())

        def show_wait(what: str) -> None:
            progress.update(bar, description=what)
            log.goes_on(what)

        def show_gold(check: GoldCheck) -> None:
            say_gold(progress.console, check)
            say(progress.console, f"calls in {calls}")

        done = label_texts(run, file, settings, labels, calls, show, show_gold, show_wait)
        if done.rows:
            write_table(as_rows(done), out)
    said = f"{out}: {counted(len(done.rows), 'text')} labelled" if done.rows else "no text was labelled"
    stopped = f"; ended by a cap: {done.stopped_by}" if done.stopped_by else ""
    unread = f", {done.num_unreadable} of them without a class" if done.num_unreadable else ""
    terminal.echo(f"{said}; {counted(done.num_requests, 'call')}{unread}, {done.usage}{stopped}")
    if done.rows:
        terminal.echo(f"Next: look it through, then pgkd samples import {run} {out}")
