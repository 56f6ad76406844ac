"""`StudentClassifier`: a saved student as a LangChain Runnable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from pgkd_agent.errors import ConfigError
from pgkd_agent.student.batching import encode
from pgkd_agent.student.inference import INFERENCE_BATCH_SIZE, predict_logits, to_probabilities
from pgkd_agent.types import Label, Probabilities


@dataclass(frozen=True, slots=True)
class Prediction:
    """`confidence` is the probability of `label`; `probabilities` has every label, summing to 1."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class StudentClassifier(Runnable[str, Prediction]):
    """Classify texts with a model folder written by this package, or any sequence classifier.

    `batch` runs true tensor batches sorted by length. `RunnableParallel` and `|` with a fan-out call
    `invoke` per item; give lists to `batch`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        batch_size: int = INFERENCE_BATCH_SIZE,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._max_length = max_length or tokenizer.model_max_length
        self.labels: tuple[str, ...] = tuple(model.config.id2label[index] for index in range(model.config.num_labels))

    @classmethod
    def load(
        cls, folder: Path | str, device: str = "auto", batch_size: int = INFERENCE_BATCH_SIZE
    ) -> StudentClassifier:
        """Load a model folder.

        Raises:
            ConfigError: The folder is missing or holds no sequence classifier.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from pgkd_agent.student.loading import choose_device
        from pgkd_agent.student.quiet import quiet_transformers

        if not (Path(folder) / "config.json").is_file():
            raise ConfigError(f"{folder} is no model folder: expected one with a config.json in it")
        try:
            with quiet_transformers():
                model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigError(f"the model in {folder} cannot be loaded: {error}") from error
        return cls(model.to(choose_device(device)), tokenizer, batch_size=batch_size)

    @property
    def taxonomy(self) -> tuple[Label, ...]:
        return tuple(Label(name) for name in self.labels)

    def probabilities(self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None) -> Probabilities:
        """Shape (n_texts, n_labels), columns in the order of `labels`."""
        encoded = encode(self._tokenizer, texts, self._max_length) if texts else []
        return to_probabilities(predict_logits(self._model, self._tokenizer, encoded, self._batch_size, on_batch))

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

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts; the same as `batch`, without callbacks."""
        rows = self.probabilities(texts)
        return [
            Prediction(
                self.labels[int(row.argmax())],
                float(row.max()),
                dict(zip(self.labels, map(float, row), strict=True)),
            )
            for row in rows
        ]
