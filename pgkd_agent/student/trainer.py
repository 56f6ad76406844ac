"""The plain PyTorch training loop of one fit."""

from __future__ import annotations

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
from pgkd_agent.student.accelerated import accelerated
from pgkd_agent.student.accelerated.precision import Trainee
from pgkd_agent.student.batching import Encoded, inference_batches, pad, training_batches
from pgkd_agent.student.contrast import Contrast
from pgkd_agent.student.inference import last_linear, max_tokens, predict_logits
from pgkd_agent.student.recipe import TrainingRecipe
from pgkd_agent.types import FitResult

WARMUP_SHARE = 0.06
"""Of a fit's steps, over which the rate rises; then it falls linearly to 0."""
WEIGHT_DECAY = 0.01
"""AdamW's decoupled decay, not on biases and norms."""
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


def fit(
    model: Any,
    tokenizer: Any,
    train: EncodedRows,
    validation: EncodedRows,
    recipe: TrainingRecipe,
    seed: int,
    on_epoch: OnEpoch | None = None,
    *,
    learning_rate: float | None = None,
    bf16: bool = False,
) -> FitResult:
    """Train until the validation loss stops falling, and end with the weights of its minimum.

    Args:
        learning_rate: Peak rate; None takes the first of the recipe's.
        bf16: Compute in bfloat16, with float32 weights.
    Raises:
        StudentDivergedError: A training or validation loss is not finite.
    """
    rate = recipe.learning_rates[0] if learning_rate is None else learning_rate
    steps_per_epoch = recipe.steps_per_epoch(len(train.ids))
    steps = recipe.max_epochs * steps_per_epoch
    stopping = EarlyStopping(recipe.patience)
    best: dict[str, torch.Tensor] = {}
    with accelerated(model, tokenizer.pad_token_id, (train.ids, validation.ids), bf16, seed) as (trainee, masks):
        torch.manual_seed(derive_seed(seed, 0, "dropout"))
        optimizer = _optimizer(model, rate, recipe.head_factor)
        schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP_SHARE * steps), steps)
        contrast = Contrast(recipe.contrastive, last_linear(trainee.computing) if recipe.contrastive else None)
        dynamics = np.zeros((len(train.ids), model.config.num_labels), dtype=np.float32)
        epoch = 0
        while epoch < recipe.max_epochs and not stopping.should_stop:
            epoch += 1
            masks.renew()
            trainee.computing.train()
            for rows in training_batches(train.ids, recipe.train_batch_size, derive_seed(seed, epoch, "order")):
                dynamics[rows] += _step(trainee, tokenizer, train, rows, optimizer, recipe.label_smoothing, contrast)
                schedule.step()
            loss = validation_loss(trainee.computing, tokenizer, validation)
            if stopping.update(epoch, loss):
                best = copy_weights(model)
            if on_epoch:
                on_epoch(epoch, recipe.max_epochs, loss)
        model.load_state_dict(best)
    return FitResult(epoch, stopping.best_index, dynamics / epoch, epoch * steps_per_epoch, stopping.best_loss, rate)


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
                "for example `student.learning_rate=1e-5`"
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


def _optimizer(model: Any, learning_rate: float, head_factor: float) -> torch.optim.AdamW:
    """Fused AdamW; the fresh head learns faster than the pretrained encoder.

    Biases and norms (all one-dimensional parameters) are not decayed.
    """
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    groups = []
    for in_encoder in (True, False):
        for is_matrix in (True, False):
            parameters = [p for p in model.parameters() if (id(p) in encoder, p.ndim > 1) == (in_encoder, is_matrix)]
            factor = 1.0 if in_encoder else head_factor
            decay = WEIGHT_DECAY if is_matrix else 0.0
            groups.append({"params": parameters, "lr": learning_rate * factor, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=model.device.type != "mps")
