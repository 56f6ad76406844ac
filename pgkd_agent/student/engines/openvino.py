"""An exported classifier in OpenVINO, on the CPU: the fastest engine where the hardware computes in bfloat16."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from pgkd_agent.errors import ConfigError
from pgkd_agent.student.batching import Encoded, inference_batches, pad
from pgkd_agent.student.engines.choosing import ONNX_FILE, check_inputs, check_outputs, is_int8, label_map
from pgkd_agent.student.engines.onnx import require
from pgkd_agent.student.inference import OnBatch, max_tokens
from pgkd_agent.student.pretrained import read_config

TELEMETRY = "openvino_telemetry"
CPU = torch.device("cpu")


class OpenVinoEngine:
    """Batches of similar length, as many at a time as there are threads; a single batch has all threads for itself.

    Either way of running compiles the model at its first use, so a process that does both holds it twice.

    Args:
        bf16: Compute in bfloat16, which moves probabilities as it does in torch; else in float32.
        threads: None takes as many as torch would.
    Raises:
        ConfigError: OpenVINO is missing, or the file is not usable or in 8 bits.
    """

    def __init__(self, folder: Path, tokenizer: Any, bf16: bool, threads: int | None = None) -> None:
        if is_int8(folder):
            raise ConfigError(
                f"{folder} is an onnx-int8 export, for `engine=onnx`; OpenVINO takes one of `format=onnx`"
            )
        self._core = _import_openvino().Core()
        self._file = folder / ONNX_FILE
        with self._errors():
            self._model = self._core.read_model(self._file)
        check_inputs(self._file, (one.any_name for one in self._model.inputs))
        self._tokenizer = tokenizer
        self._precision = "bf16" if bf16 else "f32"
        self._threads = threads or torch.get_num_threads()
        self._compiled: dict[int, Any] = {}
        self._compiling = Lock()
        self.labels = label_map(read_config(folder, f"the model in {folder}", local_files_only=True))
        width = self._model.output(0).partial_shape[-1]
        check_outputs(self._file, [width.get_length() if width.is_static else None], self.labels)

    def logits(self, encoded: Encoded, batch_size: int, on_batch: OnBatch | None = None) -> torch.Tensor:
        """As `Engine` says."""
        logits = torch.empty(len(encoded), len(self.labels))
        if not encoded:
            return logits
        at_once = self._threads if len(encoded) > batch_size else 1
        most = min(batch_size, math.ceil(len(encoded) / at_once))  # work for every thread
        batches = list(inference_batches(encoded, most, max_tokens(CPU)))
        compiled = self._compile(at_once)

        def run(rows: list[int]) -> torch.Tensor:
            batch = pad(self._tokenizer, [encoded[row] for row in rows], CPU)
            request = compiled.create_infer_request()  # 0.04 ms
            with self._errors():
                request.infer({name: tensor.numpy() for name, tensor in batch.items()}, share_inputs=True)
            return torch.from_numpy(request.get_output_tensor(0).data.copy())

        done = 0
        with ThreadPoolExecutor(at_once) as pool:
            for rows, result in zip(batches, pool.map(run, batches), strict=True):
                logits[rows] = result
                done += len(rows)
                if on_batch:
                    on_batch(done)
        return logits

    def _compile(self, at_once: int) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": at_once,
            "ENABLE_CPU_PINNING": False,  # else processes side by side share the same few cores
        }
        with self._compiling, self._errors():
            if at_once not in self._compiled:
                self._compiled[at_once] = self._core.compile_model(self._model, "CPU", settings)
            return self._compiled[at_once]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """OpenVINO raises RuntimeError for all that goes wrong."""
        try:
            yield
        except RuntimeError as error:
            raise ConfigError(f"{self._file} cannot be run: {str(error).strip().splitlines()[-1]}") from error


def _import_openvino() -> Any:
    """Without its telemetry, which would report every import over the network to who makes it, unless opted out.

    OpenVINO works without that package, and takes an empty one in its place where it cannot be imported.
    """
    is_first = "openvino" not in sys.modules and TELEMETRY not in sys.modules
    if is_first:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return require("openvino", extra="openvino")
    finally:
        if is_first:
            sys.modules.pop(TELEMETRY, None)
