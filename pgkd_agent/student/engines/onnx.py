"""An exported classifier in ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from pgkd_agent.errors import ConfigError
from pgkd_agent.student.batching import Encoded
from pgkd_agent.student.engines.choosing import ONNX_FILE, check_inputs, check_outputs, label_map
from pgkd_agent.student.inference import OnBatch
from pgkd_agent.student.pretrained import read_config


class OnnxEngine:
    """One text a pass, without padding, several passes at a time.

    On CPUs that is no slower than batches, and no result depends on other texts: int8 scales activations by the
    largest of a pass. A single text has all threads for itself. The first call with several loads the weights once
    more.

    Args:
        threads: None takes as many as torch would.
    Raises:
        ConfigError: ONNX Runtime is missing, or the file is not usable.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self._runtime = require("onnxruntime")
        self._file = folder / ONNX_FILE
        self._threads = threads or torch.get_num_threads()
        self._sessions: dict[int, Any] = {}
        self._opening = Lock()
        check_inputs(self._file, (one.name for one in self._session(self._threads).get_inputs()))
        self.labels = label_map(read_config(folder, f"the model in {folder}", local_files_only=True))
        check_outputs(self._file, self._session(self._threads).get_outputs()[0].shape, self.labels)

    def logits(self, encoded: Encoded, batch_size: int, on_batch: OnBatch | None = None) -> torch.Tensor:
        """As `Engine` says; `batch_size` is without meaning here."""
        logits = torch.empty(len(encoded), len(self.labels))
        if len(encoded) <= 1 or self._threads == 1:
            for number, ids in enumerate(encoded):
                logits[number] = self._run(self._session(self._threads), ids)
                _tell(on_batch, number + 1)
            return logits
        session = self._session(1)
        longest_first = sorted(range(len(encoded)), key=lambda row: -len(encoded[row]))
        with ThreadPoolExecutor(self._threads) as pool:
            results = pool.map(lambda row: self._run(session, encoded[row]), longest_first)
            for done, (row, result) in enumerate(zip(longest_first, results, strict=True), 1):
                logits[row] = result
                _tell(on_batch, done)
        return logits

    def _run(self, session: Any, ids: Sequence[int]) -> torch.Tensor:
        row = np.asarray([ids], dtype=np.int64)
        with self._errors():
            logits = session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0]
        return torch.from_numpy(logits[0])

    def _session(self, threads: int) -> Any:
        with self._opening, self._errors():
            if threads not in self._sessions:
                options = self._runtime.SessionOptions()
                options.intra_op_num_threads = threads
                self._sessions[threads] = self._runtime.InferenceSession(
                    str(self._file), options, providers=["CPUExecutionProvider"]
                )
            return self._sessions[threads]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime's have no common class but this
            raise ConfigError(f"{self._file} cannot be run: {str(error).splitlines()[0]}") from error


def require(package: str, extra: str = "onnx") -> Any:
    """Import a package of an extra.

    Raises:
        ConfigError: It is not installed; the command that does it is named.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(f"the package {package} is missing; run `pip install 'pgkd-agent[{extra}]'`") from error


def _tell(on_batch: OnBatch | None, done: int) -> None:
    if on_batch:
        on_batch(done)
