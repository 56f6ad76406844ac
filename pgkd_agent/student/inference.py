"""Probabilities of a model for texts: one function for training, evaluation and the saved classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pgkd_agent.student.batching import Encoded, inference_batches, pad
from pgkd_agent.types import Probabilities

INFERENCE_BATCH_SIZE = 64

MAX_TOKENS = {"cpu": 2048, "cuda": 65536, "mps": 16384}
"""Most tokens, padding included, that go through a model at a time, by device: memory does not grow with the texts."""


def max_tokens(device: torch.device) -> int:
    return MAX_TOKENS.get(device.type, MAX_TOKENS["cpu"])


OnBatch = Callable[[int], None]
"""Told the number of texts done."""


@torch.inference_mode()
def predict_logits(
    model: Any,
    tokenizer: Any,
    encoded: Encoded,
    batch_size: int = INFERENCE_BATCH_SIZE,
    on_batch: OnBatch | None = None,
) -> torch.Tensor:
    """Logits on the CPU in the order of `encoded`, shape (n, n_classes), float32.

    In float32 they do not depend on the other rows of a batch beyond 1e-4, probabilities not beyond 1e-5.

    Args:
        batch_size: Most texts of a batch.
    """
    model.eval()
    logits = torch.empty(len(encoded), model.config.num_labels)
    done = 0
    for rows in inference_batches(encoded, batch_size, max_tokens(model.device)):
        batch = pad(tokenizer, [encoded[row] for row in rows], model.device)
        logits[rows] = model(**batch).logits.float().cpu()
        done += len(rows)
        if on_batch:
            on_batch(done)
    return logits


def head_inputs(model: Any, tokenizer: Any, encoded: Encoded) -> np.ndarray:
    """What the last layer of the head is given for each text, shape (n, its width), float32."""
    layer = last_linear(model)
    with watched(layer) as seen:
        predict_logits(model, tokenizer, encoded)
    batches = inference_batches(encoded, INFERENCE_BATCH_SIZE, max_tokens(model.device))
    result = torch.empty(len(encoded), layer.in_features)
    result[[row for rows in batches for row in rows]] = torch.cat(seen).float().cpu()
    return result.numpy()


def last_linear(model: Any) -> torch.nn.Linear:
    """The layer that gives the logits; some models list it before their encoder's."""
    encoder = set(model.base_model.modules())
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module not in encoder][-1]


@contextmanager
def watched(module: torch.nn.Module, output: bool = False) -> Iterator[list[Any]]:
    """What a module is given first, or what it returns, for each time that it runs in the block."""
    seen: list[Any] = []
    handle = (
        module.register_forward_hook(lambda _module, _inputs, result: seen.append(result))
        if output
        else module.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    )
    try:
        yield seen
    finally:
        handle.remove()


def to_probabilities(logits: torch.Tensor) -> Probabilities:
    """Softmax in double precision, so that a tiny probability stays above 0 and its log finite."""
    probabilities: np.ndarray = logits.double().softmax(dim=-1).numpy()
    return probabilities
