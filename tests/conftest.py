"""No keys, no network but loopback, seeded, and a working directory of its own for every test."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one takes longer now and then, which is no failure
settings.load_profile("any machine")

os.environ["HF_HUB_OFFLINE"] = "1"  # read at the import of the hub's client, which would ask, wait and ask again

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as nohup and a script's & leave it, and commands inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SECRETS = ("OPENAI", "AZURE", "ANTHROPIC", "OLLAMA", "AWS_", "LANGSMITH", "LANGCHAIN", "HF_TOKEN")


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(SECRETS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.chdir(tmp_path)
    connect = socket.socket.connect

    def loopback_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_only)
    random.seed(0)
    yield


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded teacher; `make test` fetches it, so under CI it may not be missing."""
    return _embedded("smollm2")


def _embedded(name: str) -> Path:
    from pgkd_agent import embedded

    path = embedded.path_of(name)
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"no embedded model: run `pgkd models get {name}`")
    return embedded.require(name)
