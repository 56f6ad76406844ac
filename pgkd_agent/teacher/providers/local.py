"""llama.cpp's own server inside this process, for a teacher that is a GGUF file.

It listens on 127.0.0.1 at a free port and speaks the OpenAI API, so the usual client talks to it.
"""

from __future__ import annotations

import http.client
import importlib
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from pgkd_agent.errors import ConfigError

_GGUF_MAGIC = b"GGUF"
_BATCH_TOKENS = 512  # of a prompt at once; a request is cancelled between batches, so smaller closes sooner
_MIN_CONTEXT_TOKENS = 256  # with a handful, llama.cpp aborts the whole process
_SILENT = -1
# The server notices that a client hung up only after a second without news: asking more often prevents that.
_IDLE_POLL_SECONDS = 1.5


class LocalServer:
    """Serve one GGUF file while the `with` block lasts.

    With one slot the same request with the same seed gets the same reply, also in another process and with another
    thread count: no prompt cache, requests queue, no flash attention (its sums depend on the threads). Several slots
    compute together, which is faster, and then replies depend on what else is computed.

    Args:
        model: A .gguf file.
        context_tokens: Prompt and reply together, >= 256; more than the model was trained on is not used.
            A longer prompt is refused with HTTP 400, a reply is cut there (`finish_reason` "length").
        threads: CPU threads, >= 1. More than the free cores slows it down 10 to 100 times: they spin.
        slots: Requests answered at once, >= 1; each has a context of its own.
    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(self, model: Path, context_tokens: int = 4096, threads: int = 1, slots: int = 1) -> None:
        if context_tokens < _MIN_CONTEXT_TOKENS:
            raise ConfigError(f"context_tokens is {context_tokens}, expected at least {_MIN_CONTEXT_TOKENS}")
        if threads < 1:
            raise ConfigError(f"threads is {threads}, expected at least 1")
        if slots < 1:
            raise ConfigError(f"slots is {slots}, expected at least 1")
        self.model = model
        self.context_tokens = context_tokens
        self.threads = threads
        self.slots = slots
        self._server: Any = None

    @property
    def base_url(self) -> str:
        """Such as `http://127.0.0.1:PORT/v1`.

        Raises:
            ConfigError: The server is not running.
        """
        if self._server is None:
            raise ConfigError(f"the server for {self.model.name} is not running: use it in a `with` block")
        return f"{self._server.listening_address}/v1"

    def start(self) -> Self:
        """Load the model and listen; nothing happens when it already runs.

        Raises:
            ConfigError: xllamacpp is not installed; the file is missing, is not GGUF, or cannot be loaded.
        """
        if self._server is not None:
            return self
        _check_gguf(self.model)
        xllamacpp = _xllamacpp()
        try:
            self._server = xllamacpp.Server(self._params(xllamacpp))
        except (RuntimeError, ValueError, MemoryError) as error:
            raise ConfigError(
                f"llama.cpp could not load {self.model}: the file may be cut short, of an unknown kind, or "
                f"too big for this machine's memory with {self.context_tokens} tokens of context ({error})"
            ) from error
        return self

    def close(self) -> None:
        """Stop the server and free the model; safe to call twice.

        Waits for a reply in flight: destroying the server under a waiting client of this process deadlocks,
        since the destructor holds the interpreter lock that the client needs to hang up.
        """
        if self._server is None:
            return
        while _is_busy(self._server.listening_address):
            time.sleep(_IDLE_POLL_SECONDS)
        self._server = None  # the only reference: its destructor stops the loop and joins the thread

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _params(self, xllamacpp: Any) -> Any:
        params = xllamacpp.CommonParams()
        params.model.path = str(self.model)
        params.model_alias = {self.model.stem}  # replies name the model: not by its path on this machine
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.n_ctx = self.context_tokens * self.slots
        params.n_parallel = self.slots
        params.n_batch = _BATCH_TOKENS
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = self.threads
        params.cpuparams_batch.n_threads = self.threads
        params.cache_prompt = False
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.fit_params = False  # never shrink the context to the free memory behind our back
        params.warmup = False
        params.offline = True
        params.ui = False
        params.verbosity = _SILENT
        return params


def _xllamacpp() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ConfigError(
            f"a local teacher needs xllamacpp ({error}): run `pip install 'pgkd-agent[local]'`"
        ) from error


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"no model file at {path}; expected a .gguf file")
    try:
        with path.open("rb") as file:
            head = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ConfigError(f"cannot read the model file {path}: {error}") from error
    if head != _GGUF_MAGIC:
        raise ConfigError(f"{path} is not a GGUF file: it begins with {head!r}, expected {_GGUF_MAGIC!r}")


def _is_busy(address: str) -> bool:
    """Whether a request is worked on; a server too busy to say so is busy. Asked directly, past any proxy."""
    host = urlsplit(address)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=_IDLE_POLL_SECONDS)
    try:
        connection.request("GET", "/slots")
        slots = json.loads(connection.getresponse().read())
    except TimeoutError:
        return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return any(slot.get("is_processing", False) for slot in slots)
