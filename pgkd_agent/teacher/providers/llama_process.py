"""The process of the embedded teacher: llama.cpp's own server, for as long as its caller holds the other end of stdin.

`providers.local` runs this file; nothing imports it. In a process of its own, what llama.cpp takes for a reason to
abort, or the system for too much memory, does not end the caller, and its end waits for no client.
"""

import json
import os
import signal
import sys

import xllamacpp

_BATCH_TOKENS = 512  # of a prompt at once; a request is cancelled between batches, so smaller frees the cores sooner
_SILENT = -1


def main(model: str, alias: str, context_tokens: int, threads: int, slots: int) -> None:
    """Write one line of JSON, `address` or `error`, and serve until stdin ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the caller, which may still want its replies
        signal.signal(number, signal.SIG_IGN)
    os.environ["GGML_NO_BACKTRACE"] = "1"  # before it aborts it would start a debugger, where there is one
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}  # replies name the model: not by its path on this machine
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = context_tokens * slots
    params.n_parallel = slots
    params.n_batch = _BATCH_TOKENS
    params.n_gpu_layers = 0
    for cpus in (params.cpuparams, params.cpuparams_batch):
        cpus.n_threads = threads
        cpus.poll = 0  # threads that wait sleep: beside other work, spinning costs more than waking
    params.cache_prompt = False
    params.cache_ram_mib = 0  # else the state after each request stays in memory, up to 8 GiB
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_ENABLED if slots > 1 else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False  # never shrink the context to the free memory behind our back
    params.warmup = False
    params.offline = True
    params.ui = False
    params.verbosity = _SILENT
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, ValueError, MemoryError) as error:
        said = {"error": str(error)}
    else:
        said = {"address": server.listening_address}
    print(json.dumps(said), flush=True)  # noqa: T201
    if "address" in said:
        sys.stdin.buffer.read()
    os._exit(0)  # past destructors, which would wait for the clients


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
