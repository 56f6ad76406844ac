"""`pgkd serve`: a saved model over HTTP."""

from __future__ import annotations

import os
import socket
from typing import Annotated

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped
from pgkd_agent.cli.stopping import ignore_signals
from pgkd_agent.errors import ConfigError
from pgkd_agent.text import counted

LOOPBACK = ("127.0.0.1", "::1", "localhost")
KEY = "PGKD_API_KEY"
SHUTDOWN_SECONDS = 30
"""For requests under way when the server is told to end."""


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
        import uvicorn

        from pgkd_agent.answering.serving.app import create_app
        from pgkd_agent.answering.serving.limits import Limits
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the package with its extra: pip install 'pgkd-agent[serve]'"
        ) from error
    classifier = inference.load(model)
    hosts = LOOPBACK if key is None else None
    limits = Limits(max_texts, max_chars, max_bytes, max_waiting)
    app = create_app(classifier, limits, max_batch=max_batch, min_confidence=min_confidence, key=key, hosts=hosts)
    listener = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    terminal.say(
        terminal.notes(), f"{model}: {counted(len(classifier.labels), 'class', 'classes')} at {address}; Ctrl+C ends it"
    )
    settings = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=max_connections + 1,  # uvicorn counts the one that asks
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    ignore_signals()
    uvicorn.Server(settings).run([listener])


def _listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        ConfigError: The address is not of this machine, or taken.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = error.strerror or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {problem}; name another --host or --port") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer waits 40 ms for an acknowledgement
    return listener
