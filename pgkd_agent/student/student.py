"""`TorchStudent`: the student of Algorithm 1 over a Hugging Face sequence classifier."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pgkd_agent.config import StudentSettings
from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.history import texts_of
from pgkd_agent.seeding import derive_seed
from pgkd_agent.student.batching import Encoded, count_cut, encode
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.head_start import SentenceStart, class_texts
from pgkd_agent.student.inference import head_inputs, predict_logits, to_probabilities
from pgkd_agent.student.limits import bind, positions
from pgkd_agent.student.loading import choose_device, load_model, load_tokenizer, use_bf16
from pgkd_agent.student.recipe import TrainingRecipe, pooling_of, recipe_for
from pgkd_agent.student.saving import save_classifier
from pgkd_agent.student.threads import limit_threads
from pgkd_agent.student.trainer import EncodedRows, OnEpoch, copy_weights, fit
from pgkd_agent.types import Example, FitResult, Label, Probabilities, label_names

logger = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Guide:
    """The plain student, whose predictions soften the labels of later fits.

    Attributes:
        opinions: Its probabilities by text, each of shape (n_classes,), float32; it is asked once a text.
    """

    weights: Weights
    opinions: dict[str, np.ndarray]

    def copy(self) -> Guide:
        return Guide(self.weights, dict(self.opinions))


@dataclass(frozen=True, slots=True)
class Snapshot:
    weights: Weights
    guide: Guide | None


class TorchStudent:
    """A classifier that can be fitted again and again, and put back to any snapshot.

    Args:
        seed: The head is drawn from it, once for all steps, unless the encoder's knowledge sets it; order and dropout
            from (seed, step).
        on_epoch: Called after each epoch of each fit.
        recipe: How it is trained; None takes that of the settings and the encoder.
    Raises:
        ConfigError: The student or the device is not usable.
    """

    def __init__(
        self,
        settings: StudentSettings,
        taxonomy: tuple[Label, ...],
        seed: int,
        on_epoch: OnEpoch | None = None,
        recipe: TrainingRecipe | None = None,
    ) -> None:
        limit_threads()
        device = choose_device(settings.device)
        self._recipe = recipe or recipe_for(settings)
        self._learning_rate = self._recipe.learning_rates[0]
        self._bf16 = use_bf16(settings.bf16, device)
        self._guide: Guide | None = None
        self._seed = seed
        self._on_epoch = on_epoch
        self._class_ids = {name: index for index, name in enumerate(label_names(taxonomy))}
        self._tokenizer = load_tokenizer(settings.name)
        self._load: Callable[[], Any] = partial(
            load_model, settings.name, taxonomy, derive_seed(seed, 0, "head"), device
        )
        self._model = self._load()
        self._is_as_loaded = True
        bind(self._tokenizer, self._model.config, f"student {settings.name!r}")
        self._max_length = min(settings.max_length, positions(self._model.config) or settings.max_length)
        self._encoded: dict[str, list[int]] = {}
        self._start: SentenceStart | None = None
        if self._recipe.head_init == "centroids" and (pooling := pooling_of(settings.name)):
            texts = encode(self._tokenizer, class_texts(taxonomy), self._max_length)
            self._start = SentenceStart(self._model, self._tokenizer, pooling, texts)

    def reset(self) -> None:
        """Go back to the weights before the first fit, with nobody to soften labels."""
        self._guide = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """With the pretrained weights and the head as it was drawn: both are read again, to take no memory now."""
        if not self._is_as_loaded:
            self._model.load_state_dict(self._load().state_dict())
            self._is_as_loaded = True

    def fit(
        self,
        rows: Sequence[Example],
        validation: Sequence[Example],
        kd_step: int,
        weights: Sequence[float] | None = None,
    ) -> FitResult:
        is_plain = kd_step == 0
        if is_plain:
            self._guide = None
        if is_plain and len(self._recipe.learning_rates) > 1:
            result = self._fit_with_best_rate(rows, validation, weights)
        else:
            if self._recipe.restart == "from_scratch":
                self._begin_anew()
            result = self._fit(rows, validation, kd_step, weights)
        if is_plain and self._recipe.soft_labels:
            self._guide = Guide(copy_weights(self._model), {})
        return result

    def refit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        """Fit from the beginning as in that step, at the rate chosen then.

        Args:
            rows: With the validation rows among them, whose loss then only says when to end: late.
        """
        guide = self._guide
        if kd_step == 0:
            self._guide = None
        self._begin_anew()
        result = self._fit(rows, validation, kd_step, None)
        self._guide = guide
        return result

    def _fit_with_best_rate(
        self, rows: Sequence[Example], validation: Sequence[Example], weights: Sequence[float] | None
    ) -> FitResult:
        """The fit with the lowest validation loss of one with each rate; later fits take the rate it had.

        Its gradient steps are those of all of them.
        """
        best: tuple[FitResult, Weights] | None = None
        steps = 0
        for rate in self._recipe.learning_rates:
            self._begin_anew()
            self.learning_rate = rate
            try:
                result = self._fit(rows, validation, 0, weights)
            except StudentDivergedError as error:
                logger.info("learning rate %g: %s", rate, error)
                continue
            logger.info("learning rate %g: validation loss %.4f", rate, result.validation_loss)
            steps += result.gradient_steps
            if best is None or result.validation_loss < best[0].validation_loss:
                best = result, copy_weights(self._model)
        if best is None:
            rates = ", ".join(f"{rate:g}" for rate in self._recipe.learning_rates)
            raise StudentDivergedError(f"the loss became infinite with each learning rate ({rates}); try lower ones")
        self.learning_rate = best[0].learning_rate
        self._model.load_state_dict(best[1])
        return replace(best[0], gradient_steps=steps)

    def _fit(
        self,
        rows: Sequence[Example],
        validation: Sequence[Example],
        kd_step: int,
        weights: Sequence[float] | None,
    ) -> FitResult:
        self._encode(texts_of((*rows, *validation)))  # together, so that what is cut is said once
        encoded = replace(self._rows(rows), weights=weights, soft=self._softened(rows))
        if self._start and self._is_as_loaded:
            self._start.apply(encoded.ids, encoded.labels)
        self._is_as_loaded = False
        result = fit(
            self._model,
            self._tokenizer,
            encoded,
            self._rows(validation),
            self._recipe,
            derive_seed(self._seed, kd_step, "fit"),
            self._on_epoch,
            learning_rate=self._learning_rate,
            bf16=self._bf16,
        )
        logger.info("fit: %d epochs, best %d", result.epochs, result.best_epoch)
        return result

    def _softened(self, rows: Sequence[Example]) -> np.ndarray | None:
        """The labels with the guide's opinions, shape (n_rows, n_classes); None where all are labels as they are.

        A row with shares of its own keeps them: the student's opinion is in them already.
        """
        shares = {number: found for number, row in enumerate(rows) if (found := getattr(row, "shares", ()))}
        if self._guide is None and not shares:
            return None
        labels = np.eye(len(self._class_ids), dtype=np.float32)[[self._class_ids[row.label] for row in rows]]
        if self._guide is not None:
            share = np.float32(self._recipe.soft_labels)
            labels = np.asarray((1 - share) * labels + share * self._opinions(self._guide, rows), np.float32)
        for number, found in shares.items():
            labels[number] = 0
            for name, probability in found:
                labels[number, self._class_ids[name]] = probability
        return labels

    def _opinions(self, guide: Guide, rows: Sequence[Example]) -> np.ndarray:
        """Of the plain student, shape (n_rows, n_classes)."""
        opinions = guide.opinions
        if new := list(dict.fromkeys(row.text for row in rows if row.text not in opinions)):
            current = copy_weights(self._model)
            self._model.load_state_dict(guide.weights)
            opinions.update(zip(new, self.predict(new).astype(np.float32), strict=True))
            self._model.load_state_dict(current)
        return np.stack([opinions[row.text] for row in rows])

    @property
    def learning_rate(self) -> float:
        """Of the next fit; the first one chooses it where the settings name several."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self._learning_rate = rate

    def predict(self, texts: Sequence[str]) -> Probabilities:
        return to_probabilities(predict_logits(self._model, self._tokenizer, self._encode(texts)))

    def head_inputs(self, texts: Sequence[str]) -> np.ndarray:
        """What the last layer makes its logits of, without dropout; shape (n_texts, its width)."""
        return head_inputs(self._model, self._tokenizer, self._encode(texts))

    def snapshot(self) -> Snapshot:
        return Snapshot(copy_weights(self._model), self._guide and self._guide.copy())

    def restore(self, snapshot: Snapshot) -> None:
        self._model.load_state_dict(snapshot.weights)
        self._guide = snapshot.guide and snapshot.guide.copy()
        self._is_as_loaded = False

    def save(self, folder: Path) -> None:
        """Write the Hugging Face layout, replacing `folder` whole."""
        save_classifier(self._model, self._tokenizer, self._max_length, folder)

    def classifier(self, temperature: float = 1.0) -> StudentClassifier:
        """The current weights as a Runnable; later fits change it too."""
        return StudentClassifier(self._model, self._tokenizer, max_length=self._max_length, temperature=temperature)

    @property
    def size_bytes(self) -> int:
        """Of the weights as they are saved."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._model.state_dict().values())

    @property
    def description(self) -> dict[str, Any]:
        """What was decided for this student, for the run's records."""
        return {
            "device": str(self._model.device),
            "bf16": self._bf16,
            "max_length": self._max_length,
            "parameters": self._model.num_parameters(),
        }

    def _rows(self, rows: Sequence[Example]) -> EncodedRows:
        return EncodedRows(self._encode(texts_of(rows)), [self._class_ids[row.label] for row in rows])

    def _encode(self, texts: Sequence[str]) -> Encoded:
        """Token ids; a text is tokenised once in a run, since the history only grows."""
        new = list({text for text in texts if text not in self._encoded})
        if new:
            ids = encode(self._tokenizer, new, self._max_length)
            self._encoded.update(zip(new, ids, strict=True))
            if cut := count_cut(self._tokenizer, new, ids, self._max_length):
                logger.warning("texts longer than %d tokens, cut there: %d of %d", self._max_length, cut, len(new))
        return [self._encoded[text] for text in texts]
