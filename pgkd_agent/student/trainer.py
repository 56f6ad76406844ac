"""The plain PyTorch training loop of one fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.early_stopping import EarlyStopping
from pgkd_agent.seeding import derive_seed
from pgkd_agent.student.accelerated.dropout import MaskPool, pooled_dropout
from pgkd_agent.student.accelerated.precision import Trainee
from pgkd_agent.student.accelerated.vocabulary import only_occurring_tokens
from pgkd_agent.student.batching import Encoded, inference_batches, pad, training_batches
from pgkd_agent.student.contrast import Contrast
from pgkd_agent.student.inference import last_linear, max_tokens, predict_logits
from pgkd_agent.types import FitResult

GRADIENT_CLIP = 1.0
"""Largest gradient norm, the common choice for BERT fine-tuning."""

OnEpoch = Callable[[int, int, float], None]
"""(epoch from 1, most epochs, validation loss in nats)."""


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Token ids and class ids, in the same order.

    Attributes:
        weights: Of the rows in the training loss, None where all are 1.
        soft: What to train on in place of the labels, shape (n_rows, n_classes), each row a distribution.
    """

    ids: Encoded
    labels: Sequence[int]
    weights: Sequence[float] | None = None
    soft: np.ndarray | None = None

    def targets(self, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        """Of these rows, for `cross_entropy`: class ids, shape (n,), or distributions, shape (n, n_classes)."""
        if self.soft is None:
            return torch.tensor([self.labels[row] for row in rows], device=device)
        return torch.from_numpy(self.soft[list(rows)]).to(device)


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Values of one fit, all decided: see `StudentSettings` for what they mean."""

    learning_rate: float
    batch_size: int
    max_epochs: int
    min_steps: int
    patience: int
    warmup_share: float
    weight_decay: float
    head_factor: float
    label_smoothing: float
    contrastive: float
    bf16: bool

    def epochs_for(self, rows: int) -> tuple[int, int]:
        """Most epochs and patience of a fit to so many rows: both are stretched where `min_steps` asks for more."""
        epochs = max(self.max_epochs, math.ceil(self.min_steps / self.steps_per_epoch(rows)))
        return epochs, math.ceil(self.patience * epochs / self.max_epochs)

    def steps_per_epoch(self, rows: int) -> int:
        return math.ceil(rows / self.batch_size)


def fit(
    model: Any,
    tokenizer: Any,
    train: EncodedRows,
    validation: EncodedRows,
    settings: FitSettings,
    seed: int,
    on_epoch: OnEpoch | None = None,
    *,
    keeps_start: bool = False,
) -> FitResult:
    """Train until the validation loss stops falling, and end with the weights of its minimum.

    Args:
        keeps_start: The weights at the start are among those to end with, as epoch 0.
    Raises:
        StudentDivergedError: A training or validation loss is not finite.
    """
    with only_occurring_tokens(model, tokenizer.pad_token_id, train.ids, validation.ids):
        trainee = Trainee(model, settings.bf16)
        try:
            with pooled_dropout(trainee.computing, derive_seed(seed, 0, "dropout")) as masks:
                return _fit(model, trainee, tokenizer, train, validation, settings, seed, masks, on_epoch, keeps_start)
        finally:
            trainee.begin_step()  # leave no gradients behind


def _fit(
    model: Any,
    trainee: Trainee,
    tokenizer: Any,
    train: EncodedRows,
    validation: EncodedRows,
    settings: FitSettings,
    seed: int,
    masks: MaskPool,
    on_epoch: OnEpoch | None,
    keeps_start: bool,
) -> FitResult:
    torch.manual_seed(derive_seed(seed, 0, "dropout"))
    optimizer = _optimizer(model, settings)
    max_epochs, patience = settings.epochs_for(len(train.ids))
    steps = max_epochs * settings.steps_per_epoch(len(train.ids))
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup_share * steps), steps)
    stopping = EarlyStopping(patience)
    contrast = Contrast(settings.contrastive, last_linear(trainee.computing) if settings.contrastive else None)
    best: dict[str, torch.Tensor] = {}
    if keeps_start:
        stopping.update(0, validation_loss(trainee.computing, tokenizer, validation))
        best = copy_weights(model)
    dynamics = np.zeros((len(train.ids), model.config.num_labels), dtype=np.float32)
    epoch = 0
    while epoch < max_epochs and not stopping.should_stop:
        epoch += 1
        masks.renew()
        trainee.computing.train()
        for rows in training_batches(train.ids, settings.batch_size, derive_seed(seed, epoch, "order")):
            dynamics[rows] += _step(trainee, tokenizer, train, rows, optimizer, settings.label_smoothing, contrast)
            schedule.step()
        loss = validation_loss(trainee.computing, tokenizer, validation)
        if stopping.update(epoch, loss):
            best = copy_weights(model)
        if on_epoch:
            on_epoch(epoch, max_epochs, loss)
    model.load_state_dict(best)
    taken = epoch * settings.steps_per_epoch(len(train.ids))
    return FitResult(epoch, stopping.best_index, dynamics / epoch, taken, stopping.best_loss, settings.learning_rate)


def _step(
    trainee: Trainee,
    tokenizer: Any,
    train: EncodedRows,
    rows: list[int],
    optimizer: torch.optim.Optimizer,
    label_smoothing: float,
    contrast: Contrast,
) -> np.ndarray:
    """One step on a batch, its longest texts first and a few at a time, since what is kept of them for the backward
    pass is most of a fit's memory; returns the probabilities seen on the way.

    They are those of the forward pass that trains on the row, so they cost nothing more and are not yet
    influenced by this step's update for it. Shape (n_rows, n_classes).
    """
    device = trainee.computing.device
    seen = np.empty((len(rows), trainee.computing.config.num_labels), dtype=np.float32)
    trainee.begin_step()
    for part in inference_batches([train.ids[row] for row in rows], len(rows), max_tokens(device)):
        places = [rows[place] for place in part]
        batch = pad(tokenizer, [train.ids[row] for row in places], device)
        with contrast.watching() as inputs:
            logits = trainee.computing(**batch).logits.float()
        weights = train.weights and [train.weights[row] for row in places]
        loss = _loss(logits, train.targets(places, device), weights, label_smoothing)
        if contrast.weight:
            loss = loss + contrast.loss(inputs[0].float(), torch.tensor([train.labels[row] for row in places]))
        loss = loss / len(rows)
        if not torch.isfinite(loss):
            raise StudentDivergedError(
                f"the training loss became {loss.item()}; try a lower learning rate, "
                "for example --set student.learning_rate=1e-5"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        trainee.collect_gradients()
        seen[part] = logits.detach().softmax(dim=-1).cpu().numpy()
    trainee.clip_gradients(GRADIENT_CLIP)
    optimizer.step()
    trainee.show_weights()
    return seen


def _loss(
    logits: torch.Tensor, targets: torch.Tensor, weights: Sequence[float] | None, label_smoothing: float
) -> torch.Tensor:
    """Sum of the rows' cross-entropies in nats."""
    losses = cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
    return losses.sum() if weights is None else losses @ torch.tensor(weights, device=logits.device)


def validation_loss(model: Any, tokenizer: Any, rows: EncodedRows) -> float:
    """Mean cross-entropy in nats."""
    return float(cross_entropy(predict_logits(model, tokenizer, rows.ids), torch.tensor(rows.labels)))


def copy_weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy on the CPU: `state_dict` alone is a view that the next step writes through."""
    return {key: value.detach().to("cpu", copy=True) for key, value in model.state_dict().items()}


def _optimizer(model: Any, settings: FitSettings) -> torch.optim.AdamW:
    """Fused AdamW; the fresh head learns faster than the pretrained encoder.

    Biases and norms (all one-dimensional parameters) are not decayed.
    """
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    groups = []
    for in_encoder in (True, False):
        for is_matrix in (True, False):
            parameters = [p for p in model.parameters() if (id(p) in encoder, p.ndim > 1) == (in_encoder, is_matrix)]
            factor = 1.0 if in_encoder else settings.head_factor
            decay = settings.weight_decay if is_matrix else 0.0
            groups.append({"params": parameters, "lr": settings.learning_rate * factor, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=model.device.type != "mps")
