"""`StudentClassifier`: a saved student as a LangChain Runnable."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, StructuredTool

from pgkd_agent.errors import ConfigError
from pgkd_agent.metrics.calibration import read_temperature
from pgkd_agent.student.batching import encode
from pgkd_agent.student.engines.choosing import Engine, TorchEngine, choose_engine, longest_input, resolve_precision
from pgkd_agent.student.inference import INFERENCE_BATCH_SIZE, to_probabilities
from pgkd_agent.types import Label, Probabilities


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
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._max_length = max_length or longest_input(tokenizer, model.config)
        self._engine = engine or TorchEngine(model, tokenizer)
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
        """Load a model folder.

        Args:
            batch_size: Most texts of a forward pass; long ones go fewer at a time.
            engine: `torch`; `onnx` or `openvino` for a folder that `pgkd export` wrote, on the CPU; or `auto`: what is
                there, `onnx` for an export.
            precision: Of torch and OpenVINO. `fp32` is that of a run's own reports; `bf16` is faster on hardware that
                computes in it, and may label a text between two classes differently; `auto` is `bf16` on such hardware.
            threads: For the whole process; None leaves them as they are.
            calibrated: With the temperature that a run left in the folder; without it the probabilities are those
                that `transformers` alone gives.
        Raises:
            ConfigError: The folder is missing or holds no sequence classifier, or none for that engine; the device
                is not there; ONNX Runtime or OpenVINO is missing; its calibration is damaged.
        """
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoTokenizer

        from pgkd_agent.student.quiet import quiet_transformers

        folder = Path(folder)
        chosen = choose_engine(folder, engine)
        if threads:
            torch.set_num_threads(threads)
        try:
            with quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                loaded = (
                    _torch_engine(folder, device, precision, tokenizer)
                    if chosen == "torch"
                    else _exported_engine(chosen, folder, device, precision, tokenizer, threads)
                )
                config = AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigError(f"the model in {folder} cannot be loaded: {error}") from error
        if tokenizer.pad_token_id is None:
            raise ConfigError(f"the tokenizer in {folder} has no pad token, so texts cannot be batched")
        max_length = longest_input(tokenizer, config)
        temperature = read_temperature(folder) if calibrated else 1.0
        return cls(
            None, tokenizer, max_length=max_length, batch_size=batch_size, engine=loaded, temperature=temperature
        )

    from_pretrained = load
    """The same, under the name that people expect."""

    @property
    def taxonomy(self) -> tuple[Label, ...]:
        """The labels in the order of `labels`, without descriptions."""
        return tuple(Label(name) for name in self.labels)

    def probabilities(self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None) -> Probabilities:
        """Shape (n_texts, n_labels), columns in the order of `labels`."""
        encoded = encode(self._tokenizer, texts, self._max_length) if texts else []
        return to_probabilities(self._engine.logits(encoded, self._batch_size, on_batch) / self.temperature)

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Prediction:
        return self._call_with_config(lambda text: self.classify([text])[0], input, config)

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[Prediction]:
        def classify(texts: list[str]) -> list[Exception | Prediction]:
            return [*self.classify(texts)]

        return self._batch_with_config(classify, inputs, config, return_exceptions=return_exceptions)

    def as_tool(  # type: ignore[override]  # the base's is in beta and takes a schema; this one is a text in, a label out
        self, name: str = "classify_text", description: str | None = None
    ) -> BaseTool:
        """For an agent: takes a text, answers with label and confidence as JSON.

        Args:
            description: What the agent is told; None names the classes.
        """

        def classify_text(text: str) -> str:
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


def _torch_engine(folder: Path, device: str, precision: str, tokenizer: Any) -> Engine:
    """The attention is what transformers takes by itself, `sdpa` where the model has it."""
    from transformers import AutoModelForSequenceClassification

    from pgkd_agent.student.loading import choose_device

    chosen = choose_device(device)
    bf16 = resolve_precision(precision, chosen)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
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
