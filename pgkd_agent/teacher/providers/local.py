"""A GGUF file, answered by llama.cpp's own server in a process of its own.

It listens on 127.0.0.1 at a free port and speaks the OpenAI API, so the usual client talks to it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from pgkd_agent import embedded
from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.machine import wanted_threads
from pgkd_agent.teacher.providers.completions import mending
from pgkd_agent.teacher.providers.connection import THIS_MACHINE
from pgkd_agent.teacher.providers.dialect import Capabilities
from pgkd_agent.teacher.providers.openai import TOP_LOGPROBS, one_try
from pgkd_agent.teacher.providers.provider import ChatTeacher, Kind, Provider
from pgkd_agent.text import counted

_GGUF_MAGIC = b"GGUF"
_PROCESS = Path(__file__).with_name("llama_process.py")


def build(name: str, settings: TeacherSettings, max_tokens: int) -> ChatTeacher:
    from langchain_openai import ChatOpenAI

    path = embedded.require(name) if name in embedded.MODELS else Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"teacher {settings.spec}: no such file; embedded models: smollm2")
    server = ExitStack()
    base_url = server.enter_context(serve(path, settings.context_tokens, wanted_threads(), settings.concurrency))
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
    compute together, with flash attention, which is faster, and then replies depend on what else is computed.

    Leaving ends the server at once; who still waits for a reply is hung up on. It ends with this process too, however
    that ends.

    Args:
        model: A .gguf file.
        context_tokens: Prompt and reply together, >= 256: with a handful, llama.cpp aborts. More than the model was
            trained on is not used. A longer prompt is refused with HTTP 400, a reply is cut there (`finish_reason`
            "length").
        threads: CPU threads, >= 1; more than there are cores slow it down.
        slots: Requests answered at once, >= 1; each has a context of its own.
    Raises:
        ConfigError: The file is missing, is not GGUF, or cannot be loaded.
    """
    _check_gguf(model)
    settings = {"context_tokens": context_tokens, "threads": threads, "slots": slots}
    # By its file and without that file's folder on the path, where `openai.py` and others would hide libraries.
    command = [sys.executable, "-P", str(_PROCESS), json.dumps({"model": str(model), "alias": model.stem, **settings})]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            address, reason = _first_words(process)
            if not address:
                at_once = f" for {slots} requests at once; teacher.max_concurrency=1 takes less" if slots > 1 else ""
                raise ConfigError(
                    f"llama.cpp could not load {model}: the file may be cut short, of an unknown kind, or too big for "
                    f"this machine's memory with {counted(context_tokens * slots, 'token')} of context{at_once} "
                    f"({reason or _last_line(errors)})"
                )
            yield f"{address}/v1"
        finally:
            process.kill()


def _first_words(process: subprocess.Popen[bytes]) -> tuple[str | None, str]:
    """The address where it serves, or None and why not, empty where it could not say so."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(b"{"):  # else a library's own
            said: dict[str, str] = json.loads(line)
            return said.get("address"), said.get("error", "")
    process.wait()
    return None, ""


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its process was ended")


def _check_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ConfigError(f"cannot read the model file {path}: {error}") from error
    if head != _GGUF_MAGIC:
        raise ConfigError(f"{path} is not a GGUF file: it begins with {head!r}, expected {_GGUF_MAGIC!r}")


PROVIDER = Provider(
    "local",
    build,
    Capabilities(
        ("json_schema", "text"),
        seed="call",
        array_bounds=True,
        max_tokens_field=True,
        prefix_cache=True,
        logprobs=TOP_LOGPROBS,
    ),
    module="xllamacpp",
    install="pgkd-agent[local]",
    own_server=THIS_MACHINE,
    errors={Kind.CONTEXT: "exceed_context_size_error|available context size"},  # of any llama.cpp server
    advice={
        Kind.PASSING: "this machine is slow, or busy with something else: raise teacher.timeout, ask for less at a "
        "time (teacher.samples_per_request, teacher.max_tokens), or take a smaller model",
    },
)
