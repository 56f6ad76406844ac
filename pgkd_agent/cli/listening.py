"""Web servers of commands: where they listen, and how they end."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pgkd_agent.cli.stopping import ignore_signals
from pgkd_agent.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHUTDOWN_SECONDS = 30
"""For requests under way when the server is told to end."""


def missing_extra(error: ModuleNotFoundError) -> ConfigError:
    """What to raise where a web server cannot be imported."""
    return ConfigError(
        f"{error.name} is not installed; install the package with its extra: pip install 'pgkd-agent[serve]'"
    )


def listen(host: str, port: int, others: str = "--host or --port") -> socket.socket:
    """Take an address.

    Args:
        others: What to name another one of, where it cannot be had.

    Raises:
        ConfigError: It is not of this machine, or taken.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        problem = error.strerror or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {problem}; name another {others}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer waits 40 ms for an acknowledgement
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """As a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def serve_until_stopped(app: FastAPI, listener: socket.socket, max_connections: int) -> None:
    """Answer requests until a signal ends it; those under way are answered.

    Args:
        max_connections: Beyond them requests are answered with 503.
    Raises:
        ConfigError: See `missing_extra`.
    """
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    settings = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=max_connections + 1,  # uvicorn counts the one that asks
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    ignore_signals()
    uvicorn.Server(settings).run([listener])
