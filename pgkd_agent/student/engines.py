"""What computes a saved classifier's logits: torch, or ONNX Runtime or OpenVINO for an exported one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch

from pgkd_agent.errors import ConfigError
from pgkd_agent.student.batching import Encoded
from pgkd_agent.student.inference import OnBatch, predict_logits
from pgkd_agent.student.loading import use_bf16

ENGINES = ("auto", "torch", "onnx", "openvino")
EXPORTED = ("onnx", "openvino")
"""Those for a folder that `pgkd export` wrote."""
PRECISIONS = ("auto", "fp32", "bf16")
ONNX_FILE = "model.onnx"
REPORT_FILE = "export.json"
TORCH_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


class Engine(Protocol):
    """`labels` in the order of the columns of the logits."""

    labels: tuple[str, ...]

    def logits(self, encoded: Encoded, batch_size: int, on_batch: OnBatch | None = None) -> torch.Tensor:
        """Shape (n_texts, n_labels), float32, in the order of `encoded`; `batch_size` is the most a pass takes."""
        ...


class TorchEngine:
    """A `transformers` classifier, in batches of similar length.

    Args:
        bf16: Compute in bfloat16, for which the model's linear layers are converted, where that keeps enough:
            probabilities then move by some hundredths, also with the other texts of a batch, and the label of a text
            between two classes may change.
    """

    def __init__(self, model: Any, tokenizer: Any, bf16: bool = False) -> None:
        if bf16:
            for layer in model.modules():  # autocast would convert these weights anew for every batch
                if isinstance(layer, torch.nn.Linear):
                    layer.to(torch.bfloat16)
        self._model = model
        self._tokenizer = tokenizer
        self._bf16 = bf16
        self.labels = label_map(model.config)

    def logits(self, encoded: Encoded, batch_size: int, on_batch: OnBatch | None = None) -> torch.Tensor:
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._bf16):
            return predict_logits(self._model, self._tokenizer, encoded, batch_size, on_batch)


def label_map(config: Any) -> tuple[str, ...]:
    return tuple(config.id2label[index] for index in range(config.num_labels))


def read_report(folder: Path) -> dict[str, Any] | None:
    """What `pgkd export` wrote about an export, None where it wrote nothing (another tool's ONNX file)."""
    file = folder / REPORT_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def choose_engine(folder: Path, wanted: str = "auto") -> str:
    """`torch`, `onnx` or `openvino`; `auto` takes torch where its weights are in the folder, else `onnx`.

    Raises:
        ConfigError: No model in the folder, not of the wanted engine, or no such engine.
    """
    if wanted not in ENGINES:
        raise ConfigError(f"engine {wanted!r} is none of {', '.join(ENGINES)}")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is no model folder: expected one with a config.json in it")
    is_onnx = (folder / ONNX_FILE).is_file()
    if wanted in EXPORTED and not is_onnx:
        raise ConfigError(f"{folder} holds no {ONNX_FILE}; make a folder that does: pgkd export {folder}")
    has_torch = any((folder / name).is_file() for name in TORCH_FILES)
    if wanted == "torch" and is_onnx and not has_torch:
        raise ConfigError(f"{folder} was exported and holds no weights for torch; take the folder it was made from")
    return wanted if wanted != "auto" else "onnx" if is_onnx and not has_torch else "torch"


def resolve_precision(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16; `auto` does where the device has it in hardware.

    Raises:
        ConfigError: No such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    return precision == "bf16" or (precision == "auto" and use_bf16("auto", device))
