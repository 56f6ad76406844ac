"""`Embedder`: texts as vectors, by the student's encoder as it was before any training of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from pgkd_agent.config import StudentSettings
from pgkd_agent.student.batching import encode, inference_batches, pad
from pgkd_agent.student.head_start import pooled
from pgkd_agent.student.inference import INFERENCE_BATCH_SIZE, max_tokens
from pgkd_agent.student.limits import bind, positions
from pgkd_agent.student.loading import choose_device, load_encoder, load_tokenizer
from pgkd_agent.student.recipe import pooling_of


class Embedder:
    """The encoder is loaded with the first text. An encoder that says nothing of its pooling gives the mean.

    Raises:
        ConfigError: The student or the device is not usable.
    """

    def __init__(self, settings: StudentSettings) -> None:
        self._settings = settings
        self._pooling = pooling_of(settings.name) or "mean"
        self._loaded: tuple[Any, Any] | None = None

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n_texts, width), float32, each with a length of 1."""
        if self._loaded is None:
            device = choose_device(self._settings.device)
            self._loaded = load_encoder(self._settings.name).to(device).eval(), load_tokenizer(self._settings.name)
        model, tokenizer = self._loaded
        bind(tokenizer, model.config, f"student {self._settings.name!r}")
        longest = self._settings.max_length
        encoded = encode(tokenizer, texts, min(longest, positions(model.config) or longest))
        result = np.empty((len(texts), model.config.hidden_size), np.float32)
        for rows in inference_batches(encoded, INFERENCE_BATCH_SIZE, max_tokens(model.device)):
            batch = pad(tokenizer, [encoded[row] for row in rows], model.device)
            vectors = pooled(model(**batch).last_hidden_state.float(), batch["attention_mask"], self._pooling)
            result[rows] = normalize(vectors).cpu().numpy()
        return result
