"""Start a student from what its sentence encoder knows.

A sentence encoder was trained so that the mean of its token vectors, or the first of them, says what a text is about.
A Hugging Face classifier reads the first token through a dense layer that this training never touched. Here that layer
is solved, by ridge regression on the texts at hand, to give the embedding that the encoder was trained for, and the
head begins as the mean embedding of each class, its name being one more row. No layer is added and none is replaced, so
the result is a classifier that `transformers` alone loads; the fit goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from pgkd_agent.student.batching import Encoded, inference_batches, pad
from pgkd_agent.student.inference import INFERENCE_BATCH_SIZE, last_linear, max_tokens, watched
from pgkd_agent.types import Label

Pooling = Literal["mean", "cls"]
"""How a sentence encoder makes one vector of a text: the mean over its tokens, or the first token's."""

SPREAD = 0.4
"""Of each number that the dense layer gives, as a standard deviation: the tanh behind it is nearly straight there."""
OFFSETS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert"), 0.0),
    **dict.fromkeys(("distilbert", "electra", "deberta", "deberta-v2"), 4.0),
}
"""Types of models whose classifier has such a dense layer, and what is added to what it gives: nothing before a tanh;
before ReLU and GELU, which cut off negative numbers, enough to come where they are straight."""
RIDGE = 0.03
"""Weight of the ridge, as a multiple of the inputs' mean variance: the best of four with 200 texts and with 800."""
MOST_TEXTS = 10_000
"""Looked at for the start; of more, evenly spaced ones."""
FEW_TEXTS = 2_000
"""With fewer the dense layer is solved on the halves of texts, too."""
SCALES = torch.logspace(math.log10(2), math.log10(60), 30)
"""Tried as the factor between a cosine and a logit."""
SCALE_TEXTS = 2_000
"""On which the factor is chosen."""


def class_texts(taxonomy: Sequence[Label]) -> list[str]:
    """What each class says of itself: its name in words, and its description where it has one."""
    return [": ".join(filter(None, (_in_words(label.name), label.description))) for label in taxonomy]


def _in_words(name: str) -> str:
    """`card_not_working` and `SPORTS` as they would stand in a text."""
    words = " ".join(name.replace("_", " ").split())
    return words.lower() if words.isupper() else words


@dataclass(frozen=True, slots=True)
class _Read:
    """What the encoder makes of texts, on the CPU, each of shape (n_texts, width).

    Attributes:
        inputs: Of the dense layer.
        embeddings: As the encoder was trained to give them, with a length of 1.
    """

    inputs: torch.Tensor
    embeddings: torch.Tensor

    @classmethod
    def none(cls, width: int) -> _Read:
        return cls(torch.empty(0, width), torch.empty(0, width))


class SentenceStart:
    """Sets dense layer and head of a classifier whose encoder has its pretrained weights.

    Args:
        model: A sequence classifier over a sentence encoder, of a type in `OFFSETS`.
        class_ids: Token ids of a text about each class (`class_texts`), in the order of the taxonomy.
    """

    def __init__(self, model: Any, tokenizer: Any, pooling: Pooling, class_ids: Encoded) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._pooling = pooling
        self._class_ids = class_ids
        self._special = frozenset(tokenizer.all_special_ids)
        self._known: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def apply(self, ids: Encoded, labels: Sequence[int]) -> None:
        """Set both layers from training rows.

        Args:
            labels: Class ids of the texts.
        """
        dense, head = reading_layers(self._model, self._tokenizer, self._class_ids[0])
        step = math.ceil(len(ids) / MOST_TEXTS)
        rows = self._read(dense, [*ids[::step], *self._class_ids])
        halves = self._read(dense, self._halves(ids)) if len(ids) < FEW_TEXTS else _Read.none(dense.in_features)
        weight, bias = solve_ridge(
            torch.cat([rows.inputs, halves.inputs]), spread(torch.cat([rows.embeddings, halves.embeddings]))
        )
        _set(dense, weight.T, bias + OFFSETS[self._model.config.model_type])
        features = self._features(dense, rows.inputs)
        texts = len(features) - len(self._class_ids)
        _set(head, *centroid_head(features[:texts], torch.tensor(labels[::step]), features[texts:]))

    def _halves(self, ids: Encoded) -> Encoded:
        """Both halves of each text, with the special tokens around them that the text has."""
        halves = []
        for row in ids:
            begin = list(takewhile(self._special.__contains__, row))
            end = list(takewhile(self._special.__contains__, reversed(row)))[::-1]
            inner = row[len(begin) : len(row) - len(end)]
            if middle := len(inner) // 2:
                halves += [[*begin, *inner[:middle], *end], [*begin, *inner[middle:], *end]]
        return halves

    def _read(self, dense: nn.Linear, ids: Encoded) -> _Read:
        """The encoder is asked once about a text, since its pretrained weights stay what they are."""
        keys = [tuple(row) for row in ids]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        self._known.update(zip(new, self._forward(dense, [list(key) for key in new]), strict=True))
        inputs, embeddings = zip(*(self._known[key] for key in keys), strict=True)
        return _Read(torch.stack(inputs), torch.stack(embeddings))

    @torch.inference_mode()
    def _forward(self, dense: nn.Linear, ids: Encoded) -> list[tuple[torch.Tensor, torch.Tensor]]:
        model, device = self._model.eval(), self._model.device
        read: list[Any] = [None] * len(ids)
        for rows in inference_batches(ids, INFERENCE_BATCH_SIZE, max_tokens(device)):
            batch = pad(self._tokenizer, [ids[row] for row in rows], device)
            with watched(dense) as inputs, watched(model.base_model, output=True) as outputs:
                model(**batch)
            embeddings = pooled(outputs[0][0], batch["attention_mask"], self._pooling)
            parts = (inputs[0].float().cpu(), normalize(embeddings.float()).cpu())
            for row, *vectors in zip(rows, *parts, strict=True):
                read[row] = tuple(vector.clone() for vector in vectors)
        return read

    @torch.inference_mode()
    def _features(self, dense: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        """What the head is given where the dense layer is given `inputs`.

        The layers between the two differ from family to family; so one token runs through the model for each row, and
        the row takes its place.
        """
        device, features = self._model.device, []
        for rows in torch.split(inputs, INFERENCE_BATCH_SIZE):
            batch = pad(self._tokenizer, [self._class_ids[0][:1]] * len(rows), device)
            put = rows.to(device)
            handle = dense.register_forward_pre_hook(lambda _module, _inputs, put=put: (put,))
            try:
                with watched(last_linear(self._model)) as seen:
                    self._model(**batch)
            finally:
                handle.remove()
            features.append(seen[0].float().cpu())
        return torch.cat(features)


def reading_layers(model: Any, tokenizer: Any, ids: list[int]) -> tuple[nn.Linear, nn.Linear]:
    """The dense layer and the head: the two linear layers that are given one vector a text, in this order.

    Args:
        ids: Token ids of any text.
    """
    found: list[nn.Linear] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs: found.append(layer) if inputs[0].ndim == 2 else None)
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.inference_mode():
            model.eval()(**pad(tokenizer, [ids], model.device))
    finally:
        for handle in handles:
            handle.remove()
    dense, head = found
    return dense, head


@torch.no_grad()
def _set(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def pooled(tokens: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Shape (texts, width), of token vectors with shape (texts, tokens, width)."""
    if pooling == "cls":
        return tokens[:, 0]
    kept = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / kept.sum(dim=1)


def spread(embeddings: torch.Tensor) -> torch.Tensor:
    """Around 0, with a standard deviation of `SPREAD` over all numbers."""
    centered = embeddings - embeddings.mean(dim=0)
    return centered * (SPREAD / centered.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).eps))


def solve_ridge(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights, shape (width, width), and bias with `inputs @ weights + bias` near `targets`, rows being texts."""
    inputs, targets = inputs.double(), targets.double()
    x_mean, y_mean = inputs.mean(dim=0), targets.mean(dim=0)
    x, y = inputs - x_mean, targets - y_mean
    products = x.T @ x
    ridge = RIDGE * products.diagonal().mean() + torch.finfo(torch.float32).eps
    products.diagonal().add_(ridge)
    weights = torch.linalg.solve(products, x.T @ y)
    return weights.float(), (y_mean - x_mean @ weights).float()


def centroid_head(
    features: torch.Tensor, labels: torch.Tensor, names: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear head whose logits are, but for a factor, cosines to the mean of each class's rows and its name.

    The factor is the one with the lowest loss on the rows, each of them left out of its own class's mean.

    Args:
        features: What the head is given for each training row, shape (n_rows, width).
        labels: Their class ids, shape (n_rows,).
        names: The same for the text about each class, shape (n_classes, width); all there is where a class has no row.
    Returns:
        Weights, shape (n_classes, width), and bias, shape (n_classes,).
    """
    center = features.mean(dim=0)
    rows, sums = normalize(features - center), normalize(names - center)
    sums = sums.index_add(0, labels, rows)
    classes = normalize(sums)
    some = torch.arange(0, len(rows), math.ceil(len(rows) / SCALE_TEXTS))
    cosines = rows[some] @ classes.T
    others = normalize(sums[labels[some]] - rows[some])
    cosines[torch.arange(len(some)), labels[some]] = (rows[some] * others).sum(dim=1)
    scale = min(SCALES.tolist(), key=lambda factor: float(cross_entropy(cosines * factor, labels[some])))
    weights = classes * (scale / (features - center).norm(dim=1).mean())
    return weights, -weights @ center
