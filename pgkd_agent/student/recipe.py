"""How a student is trained: what the settings say, and the encoder's own values for what they leave open."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pgkd_agent.config import StudentSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.fetching import fetch_file
from pgkd_agent.student.head_start import OFFSETS, Pooling
from pgkd_agent.student.loading import is_classifier, load_config, resolve_source

SMALL_HIDDEN_SIZE = 384
"""Of an encoder of MiniLM's width."""

POOLING_FILE = "1_Pooling/config.json"
"""Where sentence-transformers says how an encoder makes one vector of a text."""
POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
"""By the names that it has there."""


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """All of a fit that is decided before it; what is named as in `StudentSettings` means the same.

    Attributes:
        learning_rates: Peak rates; the plain student's fit chooses where there are several.
        patience: Epochs without a lower validation loss that a fit tolerates. Paper: 5.
        head_factor: The head's rate as a multiple of the encoder's. Paper: 1.
        contrastive: Weight of a supervised contrastive loss beside the cross-entropy: what the head is given of texts
            of a class comes together, of others apart. Paper: 0.
    """

    head_init: Literal["centroids", "random"]
    learning_rates: tuple[float, ...]
    train_batch_size: int
    max_epochs: int
    head_factor: float
    label_smoothing: float
    contrastive: float
    soft_labels: float
    patience: int = 5
    restart: Literal["continue", "from_scratch"] = "from_scratch"
    refit: bool = False

    def steps_per_epoch(self, rows: int) -> int:
        """Gradient steps."""
        return math.ceil(rows / self.train_batch_size)

    def decided(self, settings: StudentSettings) -> StudentSettings:
        """The settings with what they left open filled in, for the records of a run."""
        rates = self.learning_rates
        values: dict[str, Any] = {name: getattr(self, name) for name in _NAMED}
        return settings.changed({**values, "learning_rate": rates if len(rates) > 1 else rates[0]})


_NAMED = ("head_init", "train_batch_size", "max_epochs", "label_smoothing", "soft_labels", "refit")
"""What settings may say in place of the encoder's own value, under the same name."""

BERT_BASE = TrainingRecipe(
    head_init="random",
    learning_rates=(2e-5,),
    train_batch_size=64,
    max_epochs=30,
    head_factor=1.0,
    label_smoothing=0.0,
    contrastive=0.0,
    soft_labels=0.0,
)
"""The paper's, section 4."""
SMALL = TrainingRecipe(
    head_init="random",
    learning_rates=(1.5e-4,),
    train_batch_size=32,
    max_epochs=12,
    head_factor=10.0,
    label_smoothing=0.1,
    contrastive=0.0,
    soft_labels=0.5,
)
"""For encoders of MiniLM's width: at 2e-5 they are undertrained, and any teacher looks good. With a faster head,
12 epochs reach a lower validation loss than 30 at one rate for all. Without smoothing the validation loss is lowest
long before rare classes are learned. With soft labels a small teacher's texts help whose labels are often wrong."""
SENTENCE_SMALL = replace(
    SMALL, head_init="centroids", learning_rates=(1e-4,), max_epochs=5, head_factor=3.0, contrastive=0.5, refit=True
)
"""For sentence encoders of MiniLM's width, whose head begins near where it ends (`evals/results/student.md`)."""
SENTENCE_BASE = replace(SENTENCE_SMALL, learning_rates=(3e-5,))
"""For wider ones."""


def recipe_for(settings: StudentSettings) -> TrainingRecipe:
    """The encoder's own values, each replaced where the settings name one.

    Raises:
        ConfigError: The student cannot be had, or its files are damaged.
    """
    is_small = getattr(load_config(settings.name), "hidden_size", 768) <= SMALL_HIDDEN_SIZE
    own = SMALL if is_small else BERT_BASE
    if settings.head_init != "random" and pooling_of(settings.name):
        own = SENTENCE_SMALL if is_small else SENTENCE_BASE
    if settings.restart == "continue":  # a single fit is not what such a model came from
        own = replace(own, refit=False)
    named = {name: value for name in _NAMED if (value := getattr(settings, name)) is not None}
    rates = settings.learning_rate
    if rates is not None:
        named["learning_rates"] = rates if isinstance(rates, tuple) else (rates,)
    return replace(own, restart=settings.restart, **named)


def pooling_of(name: str) -> Pooling | None:
    """How a sentence encoder was trained to read a text, from its own files; None where a student cannot start from it.

    Raises:
        ConfigError: No such student, or its file about that is damaged.
    """
    config = load_config(name)
    if is_classifier(config) or config.model_type not in OFFSETS:
        return None
    source = resolve_source(name)
    file = Path(source) / POOLING_FILE if Path(source).is_dir() else fetch_file(source, POOLING_FILE)
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        modes = {key.removeprefix("pooling_mode_") for key, value in found.items() if value is True and "mode" in key}
        modes |= {found["pooling_mode"]} if "pooling_mode" in found else set()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"student {name!r}: {POOLING_FILE} is damaged ({error}); mend or remove it") from error
    return POOLINGS.get(modes.pop()) if len(modes) == 1 else None  # several, one after the other, are none of these
