"""`pgkd serve`: a saved model over HTTP."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped
from pgkd_agent.cli.listening import LOOPBACK, address_of, listen, missing_extra, serve_until_stopped
from pgkd_agent.errors import ConfigError
from pgkd_agent.text import counted

KEY = "PGKD_API_KEY"


@grouped
def serve(
    *,
    model: options.Model,
    host: Annotated[str, typer.Option(help=f"Other than loopback needs a key in {KEY}.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Texts of several requests that are classified together.")] = 64,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Texts below it get no label (null).")] = 0.0,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts of a request.")] = 256,
    max_chars: Annotated[int, typer.Option(min=1, help="Characters of a text.")] = 20_000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2_000_000,
    max_waiting: Annotated[int, typer.Option(min=1, help="Texts that may wait in all.")] = 4096,
    max_connections: Annotated[int, typer.Option(min=1, help="Beyond them requests are answered with 503.")] = 512,
    inference: options.Inference,
) -> None:
    """Serve a model over HTTP: POST /classify, GET /labels, /health, /metrics, a page at /. Needs the extra 'serve'.

    Listens on this machine only. On other addresses requests have to bring the key that the environment variable
    PGKD_API_KEY holds, as Authorization: Bearer KEY; on this machine too where it is set.
    """
    key = os.environ.get(KEY, "").strip() or None
    if host not in LOOPBACK and key is None:
        raise ConfigError(
            f"--host {host} lets other machines in: set {KEY} to a key that requests have to bring, or leave it out"
        )
    try:
        from pgkd_agent.answering.serving.app import create_app
        from pgkd_agent.answering.serving.limits import Limits
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    classifier = inference.load(model)
    hosts = LOOPBACK if key is None else None
    limits = Limits(max_texts, max_chars, max_bytes, max_waiting)
    app = create_app(classifier, limits, max_batch=max_batch, min_confidence=min_confidence, key=key, hosts=hosts)
    listener = listen(host, port)
    address = address_of(listener, host)
    terminal.say(
        terminal.notes(), f"{model}: {counted(len(classifier.labels), 'class', 'classes')} at {address}; Ctrl+C ends it"
    )
    serve_until_stopped(app, listener, max_connections)
