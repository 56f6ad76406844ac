"""A GGUF file, answered by llama.cpp's own server inside this process.

It listens on 127.0.0.1 at a free port and speaks the OpenAI API, so the usual client talks to it.
"""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pgkd_agent import embedded
from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.providers.completions import mending
from pgkd_agent.teacher.providers.connection import THIS_MACHINE
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.openai import one_try
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider

_GGUF_MAGIC = b"GGUF"
_BATCH_TOKENS = 512  # of a prompt at once; a request is cancelled between batches, so smaller closes sooner
_SILENT = -1
# The server notices that a client hung up only after a second without news: asking more often prevents that.
_IDLE_POLL_SECONDS = 1.5


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain_openai import ChatOpenAI

    path = embedded.require(name) if name in embedded.MODELS else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"teacher {settings.spec}: no such file; embedded models: smollm2")
    server = ExitStack()
    base_url = server.enter_context(
        serve(path, settings.context_tokens, settings.threads, settings.max_concurrency or 1)
    )
    return ChatTeacher(
        mending(ChatOpenAI)(model=path.stem, base_url=base_url, api_key="local", **one_try(settings, max_tokens)),
        settings.spec,
        server=f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}",
        close=server.close,
        check_free=lambda: None,
        is_embedded=True,
    )


@contextmanager
def serve(model: Path, context_tokens: int = 4096, threads: int = 1, slots: int = 1) -> Iterator[str]:
    """Serve one GGUF file while the `with` block lasts, at the address that it yields: `http://127.0.0.1:PORT/v1`.

    With one slot the same request with the same seed gets the same reply, also in another process and with another
    thread count: no prompt cache, requests queue, no flash attention (its sums depend on the threads). Several slots
    compute together, which is faster, and then replies depend on what else is computed.

    Leaving waits for a reply in flight: destroying the server under a waiting client of this process deadlocks, since
    the destructor holds the interpreter lock that the client needs to hang up.

    Args:
        model: A .gguf file.
        context_tokens: Prompt and reply together, >= 256: with a handful, llama.cpp aborts the whole process. More
            than the model was trained on is not used. A longer prompt is refused with HTTP 400, a reply is cut there
            (`finish_reason` "length").
        threads: CPU threads, >= 1. More than the free cores slows it down 10 to 100 times: they spin.
        slots: Requests answered at once, >= 1; each has a context of its own.
    Raises:
        ConfigError: The file is missing, is not GGUF, or cannot be loaded.
    """
    import xllamacpp

    _check_gguf(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model.stem}  # replies name the model: not by its path on this machine
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = context_tokens * slots
    params.n_parallel = slots
    params.n_batch = _BATCH_TOKENS
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_prompt = False
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False  # never shrink the context to the free memory behind our back
    params.warmup = False
    params.offline = True
    params.ui = False
    params.verbosity = _SILENT
    try:
        server: Any = xllamacpp.Server(params)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise ConfigError(
            f"llama.cpp could not load {model}: the file may be cut short, of an unknown kind, or too big for this "
            f"machine's memory with {context_tokens} tokens of context ({error})"
        ) from error
    address = server.listening_address
    try:
        yield f"{address}/v1"
    finally:
        while _is_busy(address):
            time.sleep(_IDLE_POLL_SECONDS)
        del server  # the only reference: its destructor stops the loop and joins the thread


def _check_gguf(path: Path) -> None:
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


PROVIDER = Provider(
    "local",
    build,
    Capabilities(("json_schema", "text"), seed="call", array_bounds=True, max_tokens_field=True, prefix_cache=True),
    module="xllamacpp",
    install="pgkd-agent[local]",
    own_server=THIS_MACHINE,
    errors={Kind.CONTEXT: "exceed_context_size_error|available context size"},  # of any llama.cpp server
    advice={
        Kind.PASSING: "this machine is slow, or busy with something else: raise teacher.timeout, ask for less at a "
        "time (teacher.samples_per_request, teacher.max_tokens), or take a smaller model",
    },
)
