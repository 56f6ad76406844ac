"""`StudentClassifier`: a saved student as a LangChain Runnable."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import BeforeValidator

from pgkd_agent.data.values import Mender
from pgkd_agent.errors import ConfigError
from pgkd_agent.metrics.calibration import read_temperature
from pgkd_agent.student.batching import count_cut, encode
from pgkd_agent.student.checksums import check_model
from pgkd_agent.student.engines.choosing import Engine, TorchEngine, choose_engine, label_map, resolve_precision
from pgkd_agent.student.inference import INFERENCE_BATCH_SIZE, to_probabilities
from pgkd_agent.student.limits import bind, longest_input
from pgkd_agent.student.pretrained import model_folder, read_classifier, read_config, read_tokenizer
from pgkd_agent.student.texts import answered, only_texts, text_of
from pgkd_agent.student.threads import limit_threads
from pgkd_agent.text import shorten
from pgkd_agent.types import Label, Probabilities

logger = logging.getLogger(__name__)

_NO_NAME = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """`confidence` is the probability of `label`; `probabilities` has every label, summing to 1."""

    label: str
    confidence: float
    probabilities: dict[str, float]

    def label_if(self, min_confidence: float) -> str | None:
        """None where the confidence is below it."""
        return self.label if self.confidence >= min_confidence else None


class StudentClassifier(Runnable[str, Prediction]):
    """Classify texts with a model folder written by this package, or any sequence classifier.

    `batch` runs true tensor batches sorted by length. `RunnableParallel` and `|` with a fan-out call
    `invoke` per item; give lists to `batch`.

    Args:
        model: A `transformers` classifier; None where an `engine` computes.
        max_length: Tokens a text is cut at; None takes what tokenizer and model take.
        temperature: Logits are divided by it (`pgkd_agent.metrics.calibration`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        batch_size: int = INFERENCE_BATCH_SIZE,
        engine: Engine | None = None,
        temperature: float = 1.0,
    ) -> None:
        if model is not None:
            bind(tokenizer, model.config)
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._max_length = max_length or longest_input(tokenizer, model.config)
        self._engine = engine or TorchEngine(model, tokenizer)
        self._texts, self._cut = 0, 0
        self.temperature = temperature
        self.labels: tuple[str, ...] = self._engine.labels

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str = "auto",
        batch_size: int = INFERENCE_BATCH_SIZE,
        *,
        engine: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        calibrated: bool = True,
    ) -> StudentClassifier:
        """Load a model folder, or the best model of a run directory.

        Args:
            batch_size: Most texts of a forward pass; long ones go fewer at a time.
            engine: `torch`; `onnx` or `openvino` for a folder that `pgkd export` wrote, on the CPU; or `auto`: what is
                there, `onnx` for an export.
            precision: Of torch and OpenVINO. `fp32` is that of a run's own reports; `bf16` is faster on hardware that
                computes in it, and may label a text between two classes differently; `auto` is `bf16` on such hardware.
            threads: For the whole process; None leaves them as they are, but for more than there are CPUs.
            calibrated: With the temperature that a run left in the folder; without it the probabilities are those
                that `transformers` alone gives.

        Raises:
            ConfigError: The folder is missing or holds no trained classifier that gives a text one label, or none for
                that engine; its files are damaged, do not fit each other or bring code of their own; the device is not
                there; ONNX Runtime or OpenVINO is missing.
        """
        folder = model_folder(Path(folder))
        check_model(folder)
        what = f"the model in {folder}"
        chosen = choose_engine(folder, engine)
        if threads:
            torch.set_num_threads(threads)
        else:
            limit_threads()
        config = read_config(folder, what, local_files_only=True)
        tokenizer = read_tokenizer(folder, what, local_files_only=True)
        bind(tokenizer, config, what)
        label_map(config, what)
        loaded = (
            _torch_engine(folder, what, device, precision, tokenizer)
            if chosen == "torch"
            else _exported_engine(chosen, folder, device, precision, tokenizer, threads)
        )
        _speak_of_names(loaded.labels, what)
        max_length = longest_input(tokenizer, config)
        temperature = read_temperature(folder) if calibrated else 1.0
        return cls(
            None, tokenizer, max_length=max_length, batch_size=batch_size, engine=loaded, temperature=temperature
        )

    from_pretrained = load
    """The same, under the name that people expect."""

    @property
    def note(self) -> str:
        """How many of the texts so far were longer than the model takes; empty where none was."""
        return (
            self._cut and f"texts longer than {self._max_length} tokens, cut there: {self._cut} of {self._texts}"
        ) or ""

    @property
    def taxonomy(self) -> tuple[Label, ...]:
        """The labels in the order of `labels`, without descriptions."""
        return tuple(Label(name) for name in self.labels)

    def probabilities(self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None) -> Probabilities:
        """Shape (n_texts, n_labels), columns in the order of `labels`; half a surrogate pair is repaired, aloud.

        Raises:
            DataError: One of them is no text.
            ConfigError: The model gives something else than finite numbers.
        """
        mend = Mender()
        texts = only_texts(texts, mend)
        if mend.count:
            logger.warning("classifying: %s", mend.note)
        encoded = encode(self._tokenizer, texts, self._max_length) if texts else []
        self._texts += len(texts)
        self._cut += count_cut(self._tokenizer, texts, encoded, self._max_length)
        found = to_probabilities(self._engine.logits(encoded, self._batch_size, on_batch) / self.temperature)
        if not np.isfinite(found).all():
            raise ConfigError("the model gives no finite numbers: its weights are damaged, or of another precision")
        return found

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Prediction:
        return self._call_with_config(lambda text: self.classify([text_of(text)])[0], input, config)

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[Prediction]:
        def classify(inputs: list[str]) -> list[Exception | Prediction]:
            return answered(inputs, lambda texts: self.classify([*texts.values()]))

        return self._batch_with_config(classify, inputs, config, return_exceptions=return_exceptions)

    def as_tool(  # type: ignore[override]  # the base's is in beta and takes a schema; this one is a text in, a label out
        self, name: str = "classify_text", description: str | None = None
    ) -> BaseTool:
        """For an agent: takes a text, answers with label and confidence as JSON.

        Args:
            description: What the agent is told; None names the classes.
        """

        def classify_text(text: Annotated[str, BeforeValidator(text_of)]) -> str:
            prediction = self.classify([text])[0]
            found = {"label": prediction.label, "confidence": round(prediction.confidence, 3)}
            return json.dumps(found, ensure_ascii=False)

        told = description or f"Classify a text. It gets one of these labels: {', '.join(self.labels)}."
        return StructuredTool.from_function(classify_text, name=name, description=told)

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts; the same as `batch`, without callbacks."""
        rows = self.probabilities(texts)
        best = rows.argmax(axis=1)
        return [
            Prediction(self.labels[index], row[index], dict(zip(self.labels, row, strict=True)))
            for index, row in zip(best.tolist(), rows.tolist(), strict=True)
        ]


def _speak_of_names(labels: tuple[str, ...], what: str) -> None:
    if all(_NO_NAME.fullmatch(label) for label in labels):
        logger.warning("%s does not name its classes: they are %s", what, shorten(", ".join(labels), 60))


def _torch_engine(folder: Path, what: str, device: str, precision: str, tokenizer: Any) -> Engine:
    """The attention is what transformers takes by itself, `sdpa` where the model has it."""
    from pgkd_agent.student.loading import choose_device

    chosen = choose_device(device)
    bf16 = resolve_precision(precision, chosen)
    model = read_classifier(folder, what, is_trained=True, local_files_only=True)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return TorchEngine(model.to(chosen), tokenizer, bf16)


def _exported_engine(
    name: str, folder: Path, device: str, precision: str, tokenizer: Any, threads: int | None
) -> Engine:
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device {device!r}: the {name} engine runs on the CPU; take `engine=torch` for others")
    if name == "openvino":
        from pgkd_agent.student.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(folder, tokenizer, resolve_precision(precision, torch.device("cpu")), threads)
    from pgkd_agent.student.engines.onnx import OnnxEngine

    if resolve_precision(precision, torch.device("meta")):
        raise ConfigError("precision bf16 is for torch and openvino; the onnx engine has that of the export")
    return OnnxEngine(folder, threads)
