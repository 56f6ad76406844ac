"""Export a classifier to ONNX, and refuse an export that does not answer like the original."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.files import sync, sync_all
from pgkd_agent.metrics.calibration import CALIBRATION_FILE
from pgkd_agent.student.checksums import write_checksums
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.engines.choosing import ONNX_FILE, REPORT_FILE
from pgkd_agent.student.engines.onnx import require
from pgkd_agent.student.pretrained import model_folder, read_classifier, read_tokenizer
from pgkd_agent.student.quiet import quiet_transformers
from pgkd_agent.types import Probabilities

FORMATS = ("onnx", "onnx-int8")
MIN_AGREEMENT = {"onnx": 0.995, "onnx-int8": 0.97}
"""Least share of texts with the label of the original, by format."""
OPSET = 18
EXAMPLE_SHAPE = (2, 16)
"""Rows and tokens of the example that the exporter follows; both are free in what it writes."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How an export compares with the torch model in float32, over `texts` texts from `checked_on`."""

    format: str
    checked_on: str
    texts: int
    label_agreement: float
    max_probability_difference: float
    size_bytes: int
    original_size_bytes: int


def export_classifier(
    model: Path,
    out: Path,
    texts: Sequence[str],
    checked_on: str,
    format: str = "onnx",
    min_agreement: float | None = None,
) -> ExportReport:
    """Write a folder with `model.onnx`, the label map and the tokenizer; `out` is there whole or not at all.

    Args:
        texts: What the export is checked on.
        checked_on: Where they are from, for the report.
        min_agreement: None takes `MIN_AGREEMENT`.
    Raises:
        ConfigError: An unknown format, a missing package, no usable model, no texts, `out` exists, or too few labels
            are those of the original.
        StorageError: The disk is full or refuses.
    """
    model = model_folder(model)
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is none of {', '.join(FORMATS)}")
    if out.exists():
        raise ConfigError(f"{out} exists already; name another folder with `out`, or remove it")
    if not texts:
        raise ConfigError(f"{checked_on} holds no texts to check the export on")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package)
    bound = MIN_AGREEMENT[format] if min_agreement is None else min_agreement
    original = StudentClassifier.load(model, "cpu", engine="torch")
    expected = original.probabilities(texts)
    fresh = out.with_name(out.name + ".new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _write(model, fresh, format)
        found = StudentClassifier.load(fresh, engine="onnx").probabilities(texts)
        report = _compare(expected, found, format, checked_on, _size(fresh), _size(model))
        if report.label_agreement < bound:
            raise ConfigError(
                f"the {format} export gives the label of the original for {report.label_agreement:.2%} of "
                f"{len(texts)} texts ({checked_on}), at least {bound:.2%} are wanted; nothing was written: "
                "take another `format`, or allow it with `min_agreement`"
            )
        (fresh / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
        write_checksums(fresh)
        sync_all(fresh)
        fresh.rename(out)
        sync(out.parent)
    except OSError as error:
        raise StorageError(f"the export cannot be written to {out}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return report


def _write(model: Path, folder: Path, format: str) -> None:
    what = f"the model in {model}"
    classifier = read_classifier(model, what, is_trained=True, local_files_only=True)
    with quiet_transformers():
        classifier.config.save_pretrained(folder)
        read_tokenizer(model, what, local_files_only=True).save_pretrained(folder)
    if (model / CALIBRATION_FILE).is_file():
        shutil.copy(model / CALIBRATION_FILE, folder)
    if format == "onnx":
        _export(classifier, folder / ONNX_FILE)
        return
    whole = folder / "float.onnx"
    _export(classifier, whole)
    _quantise(whole, folder / ONNX_FILE)
    whole.unlink()


class _LogitsOnly(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def _export(model: Any, file: Path) -> None:
    ids = torch.full(EXAMPLE_SHAPE, 1, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[0, EXAMPLE_SHAPE[1] // 2 :] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.inference_mode(), _exporter(model.config.model_type):
        torch.onnx.export(
            _LogitsOnly(model).eval(),
            (ids, mask),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _quantise(source: Path, target: Path) -> None:
    """Weights and activations in 8 bits, each output channel with a scale of its own.

    The second layer of each feed-forward block stays in float32: its inputs have outliers, and most labels that
    change do so because of it.
    """
    quantisation = require("onnxruntime.quantization")
    graph = require("onnx").load(str(source)).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    narrowing = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and any(_narrows(shapes.get(name, ())) for name in node.input)
    ]
    with _exporter("the model"):
        quantisation.quantize_dynamic(
            str(source),
            str(target),
            weight_type=quantisation.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=narrowing,
        )


def _narrows(shape: tuple[int, ...]) -> bool:
    """Weights with more inputs than outputs."""
    return len(shape) == 2 and shape[0] > shape[1]


def _compare(
    expected: Probabilities, found: Probabilities, format: str, checked_on: str, size: int, original_size: int
) -> ExportReport:
    return ExportReport(
        format=format,
        checked_on=checked_on,
        texts=len(expected),
        label_agreement=float((expected.argmax(axis=1) == found.argmax(axis=1)).mean()),
        max_probability_difference=float(np.abs(expected - found).max()),
        size_bytes=size,
        original_size_bytes=original_size,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@contextmanager
def _exporter(what: str) -> Iterator[None]:
    """Without what is of no use to who exports: deprecations within the exporter, optional packages, advice.

    Raises:
        ConfigError: It fails, as for an architecture that it cannot follow.
    """
    loggers = [logging.getLogger(), logging.getLogger("torch.onnx"), logging.getLogger("torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # torch's exporter and ONNX Runtime's quantiser have no common class but this
        raise ConfigError(f"{what} cannot be exported: {str(error).strip().splitlines()[0]}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
