"""`pgkd ui`: runs in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import terminal
from pgkd_agent.cli.listening import LOOPBACK, address_of, listen, missing_extra, serve_until_stopped
from pgkd_agent.text import counted

MAX_CONNECTIONS = 100


def ui(
    runs: Annotated[Path, typer.Argument(help="A folder of run directories, or one of them.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8001,
) -> None:
    """Look at runs in a browser: results, mistakes, prompts, samples to review. Needs the extra 'serve'.

    Listens on this machine only. Of a run it writes nothing but review.jsonl, a person's word on its samples, which
    `pgkd samples import` takes.
    """
    try:
        from pgkd_agent.workbench.app import create_app
        from pgkd_agent.workbench.listing import runs_in
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    found = runs_in(runs)
    app = create_app(runs, LOOPBACK)
    host = LOOPBACK[0]
    listener = listen(host, port, "--port")
    address = address_of(listener, host)
    terminal.say(terminal.notes(), f"{runs}: {counted(len(found), 'run')} at {address}; Ctrl+C ends it")
    serve_until_stopped(app, listener, MAX_CONNECTIONS)
