"""What computes a saved classifier's logits: torch, or ONNX Runtime or OpenVINO for an exported one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from pgkd_agent.errors import ConfigError
from pgkd_agent.files import MODEL, nearest
from pgkd_agent.student.batching import Encoded
from pgkd_agent.student.inference import OnBatch, predict_logits
from pgkd_agent.student.loading import use_bf16

ENGINES = ("auto", "torch", "onnx", "openvino")
EXPORTED = ("onnx", "openvino")
"""Those for a folder that `pgkd export` wrote."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")
"""Types of models that count positions from behind their pad token."""
DEFAULT_LONGEST = 512
"""Tokens, of a model with relative positions whose tokenizer knows no limit either."""
PRECISIONS = ("auto", "fp32", "bf16")
ONNX_FILE = "model.onnx"
INPUTS = {"input_ids", "attention_mask"}
"""Of an exported model; its first output are the logits."""
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


def longest_input(tokenizer: Any, config: Any) -> int:
    """Tokens a text is cut at: what both take; a tokenizer without a limit says a huge number."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in OFFSET_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1
    return int(min(tokenizer.model_max_length, positions or DEFAULT_LONGEST))


def label_map(config: Any) -> tuple[str, ...]:
    return tuple(config.id2label[index] for index in range(config.num_labels))


def is_int8(folder: Path) -> bool:
    """Whether it is an export in 8 bits, as `pgkd export` wrote about it.

    Raises:
        ConfigError: What it wrote is damaged.
    """
    file = folder / REPORT_FILE
    if not file.is_file():  # another tool's
        return False
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["format"] == "onnx-int8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged; export the model anew") from error


def check_inputs(file: Path, names: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: An exported model that takes something else than token ids and their mask.
    """
    if (found := set(names)) != INPUTS:
        raise ConfigError(
            f"{file} takes {', '.join(sorted(found))}, expected {' and '.join(sorted(INPUTS))}; export the model with "
            "`pgkd export`"
        )


def choose_engine(folder: Path, wanted: str = "auto") -> str:
    """`torch`, `onnx` or `openvino`; `auto` takes torch where its weights are in the folder, else `onnx`.

    Raises:
        ConfigError: No model in the folder, not of the wanted engine, or no such engine.
    """
    if wanted not in ENGINES:
        raise ConfigError(f"engine {wanted!r} is none of {', '.join(ENGINES)}")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is no model folder: expected one with a config.json{nearest(folder, MODEL)}")
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
