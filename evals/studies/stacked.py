"""Many students of one shape trained at once: their weights lie in stacks, and one multiplication serves them all.

A fit of a small encoder on short texts leaves a GPU idle; a hundred of them fill it. For studies that need hundreds of
fits, with any target distribution a row. The encoder is BERT's, and the recipe that of `pgkd_agent.student.trainer`:
AdamW with a faster head, linear warm-up and fall, batches of similar length, dropout, bf16 products over float32
weights, the epoch with the lowest validation loss, patience. Differences: the members of a stack take their batches in
one common order of lengths, and those with up to 5 % fewer batches fill the rest with rows once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import dropout, gelu, layer_norm, scaled_dot_product_attention

POOL_BATCHES, BATCH, CLIP, WARMUP, DECAY, HEAD_FACTOR, PATIENCE = 16, 32, 1.0, 0.06, 0.01, 10.0, 5
TEMPERATURES = np.geomspace(0.5, 3.0, 14)

Weights = dict[str, torch.Tensor]


@dataclass
class Member:
    """One student: what it is trained on, and after the fit what became of it.

    Attributes:
        rows: Numbers of texts, with repetitions.
        targets: Shape (n_rows, n_classes), each a distribution.
        weights: Of the rows in the loss, None where all are 1.
        start: Weights to go on from; None starts at the pretrained ones with a head drawn from `seed`.
        lowest: Validation loss that an epoch has to be below to count.
        epochs: Figures after each epoch, by name.
        best: Logits of the validation and then the test rows, and of the other texts to predict, at the lowest loss.
    """

    name: str
    seed: int
    rows: np.ndarray
    targets: torch.Tensor
    weights: np.ndarray | None = None
    start: Weights | None = None
    lowest: float = math.inf
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best: np.ndarray | None = None
    end: Weights | None = None

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.rows) / BATCH)


@dataclass(frozen=True)
class Texts:
    """Token ids of all texts of a dataset, shape (n_texts, longest), 0 behind the end."""

    ids: torch.Tensor
    lengths: np.ndarray

    @staticmethod
    def of(encoded: Sequence[Sequence[int]], device: torch.device) -> Texts:
        lengths = np.array([len(one) for one in encoded])
        ids = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.long)
        for row, one in enumerate(encoded):
            ids[row, : len(one)] = torch.tensor(one)
        return Texts(ids.to(device), lengths)


@dataclass(frozen=True)
class Judge:
    """What to predict after each epoch, and by what to judge it: gold classes of validation and test rows."""

    rows: np.ndarray
    validation: torch.Tensor
    test: torch.Tensor
    classes: int


class Stack:
    """Weights of several students, each tensor with the members first."""

    def __init__(self, weights: Weights, layers: int, heads: int) -> None:
        self.weights = {name: tensor.requires_grad_() for name, tensor in weights.items()}
        self._layers, self._heads = layers, heads

    @property
    def members(self) -> int:
        return len(next(iter(self.weights.values())))

    def logits(self, ids: torch.Tensor, lengths: torch.Tensor, rate: float) -> torch.Tensor:
        """Of ids (members or 1, rows, length); `rate` is that of dropout. Shape (members, rows, classes), float32."""
        w = {name: tensor.to(torch.bfloat16 if ids.is_cuda else tensor.dtype) for name, tensor in self.weights.items()}
        members, (_, rows, length) = self.members, ids.shape
        words = w["words"]
        offset = torch.arange(members, device=ids.device).view(-1, 1, 1) * words.shape[1]
        x = torch.nn.functional.embedding(ids + offset, words.flatten(0, 1))
        x = x + w["positions"][:, None, :length]
        x = dropout(_norm(x, w, "norm"), rate, rate > 0).view(members, rows * length, -1)
        width, heads = x.shape[-1], self._heads
        seen = torch.arange(length, device=ids.device) < lengths.unsqueeze(-1)
        mask = seen.expand(members, rows, length).reshape(members * rows, 1, 1, length)
        for n in range(self._layers):
            qkv = torch.baddbmm(w[f"{n}.qkv.b"], x, w[f"{n}.qkv.w"])
            q, k, v = qkv.view(members * rows, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            a = scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
            a = a.transpose(1, 2).reshape(members, rows * length, width)
            a = torch.baddbmm(w[f"{n}.out.b"], a, w[f"{n}.out.w"])
            x = _norm(x + dropout(a, rate, rate > 0), w, f"{n}.norm1")
            h = torch.baddbmm(
                w[f"{n}.down.b"], gelu(torch.baddbmm(w[f"{n}.up.b"], x, w[f"{n}.up.w"])), w[f"{n}.down.w"]
            )
            x = _norm(x + dropout(h, rate, rate > 0), w, f"{n}.norm2")
        first = x.view(members, rows, length, width)[:, :, 0]
        pooled = torch.tanh(torch.baddbmm(w["pool.b"], first, w["pool.w"]))
        return torch.baddbmm(w["head.b"], dropout(pooled, rate, rate > 0), w["head.w"]).float()

    def keep(self, places: torch.Tensor) -> None:
        self.weights = {name: tensor.detach()[places].requires_grad_() for name, tensor in self.weights.items()}


def _norm(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    shape = (x.shape[0],) + (1,) * (x.dim() - 2) + (-1,)
    return layer_norm(x, x.shape[-1:], eps=1e-12) * w[f"{name}.w"].view(shape) + w[f"{name}.b"].view(shape)


def weights_of(bert: dict[str, torch.Tensor], layers: int, vocabulary: np.ndarray) -> Weights:
    """A student's weights without its head, for the tokens of a vocabulary, out of those of a BERT encoder."""

    def linear(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            torch.cat([bert[f"{name}.weight"] for name in names]).T.contiguous(),
            torch.cat([bert[f"{name}.bias"] for name in names])[None],
        )

    e = "embeddings."
    w = {
        "words": bert[e + "word_embeddings.weight"][vocabulary],
        "positions": bert[e + "position_embeddings.weight"] + bert[e + "token_type_embeddings.weight"][:1],
        "norm.w": bert[e + "LayerNorm.weight"],
        "norm.b": bert[e + "LayerNorm.bias"],
    }
    w["pool.w"], w["pool.b"] = linear("pooler.dense")
    for n in range(layers):
        at = f"encoder.layer.{n}."
        names = [f"{at}attention.self.{part}" for part in ("query", "key", "value")]
        w[f"{n}.qkv.w"], w[f"{n}.qkv.b"] = linear(*names)
        w[f"{n}.out.w"], w[f"{n}.out.b"] = linear(at + "attention.output.dense")
        w[f"{n}.up.w"], w[f"{n}.up.b"] = linear(at + "intermediate.dense")
        w[f"{n}.down.w"], w[f"{n}.down.b"] = linear(at + "output.dense")
        for number, part in ((1, "attention.output"), (2, "output")):
            w[f"{n}.norm{number}.w"] = bert[f"{at}{part}.LayerNorm.weight"]
            w[f"{n}.norm{number}.b"] = bert[f"{at}{part}.LayerNorm.bias"]
    return {name: tensor.float() for name, tensor in w.items()}


@dataclass(frozen=True)
class Fits:
    """What all members have in common.

    Attributes:
        tokens: Most of a step.
        keep_weights: Whether members keep those of their best epoch, to go on from.
    """

    texts: Texts
    judge: Judge
    pretrained: Weights
    rate: float
    max_epochs: int
    tokens: int
    keep_weights: bool = False


def fit_all(members: Sequence[Member], fits: Fits) -> None:
    """Fit every member; those with about as many rows go together."""
    for group in _groups(members, fits.texts, fits.tokens):
        _fit(group, fits)


def _groups(members: Sequence[Member], texts: Texts, tokens: int) -> Iterator[list[Member]]:
    most = max(1, tokens // (BATCH * max(8, int(np.percentile(texts.lengths, 98)))))
    group: list[Member] = []
    for member in sorted(members, key=lambda one: -one.steps_per_epoch):
        if group and (len(group) == most or member.steps_per_epoch < 0.95 * group[0].steps_per_epoch):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _fit(members: Sequence[Member], fits: Fits) -> None:
    texts, judge, pretrained, max_epochs = fits.texts, fits.judge, fits.pretrained, fits.max_epochs
    device = texts.ids.device
    stack = Stack(_start(members, pretrained, judge.classes, device), sum(".qkv.w" in name for name in pretrained), 12)
    optimizer = _optimizer(stack, fits.rate)
    per_epoch = members[0].steps_per_epoch
    steps, warm = max_epochs * per_epoch, round(WARMUP * max_epochs * per_epoch)
    generators = [np.random.default_rng([member.seed, 1]) for member in members]
    common = np.random.default_rng([members[0].seed, 2])
    torch.manual_seed(members[0].seed)
    active = list(range(len(members)))  # members by their place in the stack
    lowest, bad = [member.lowest for member in members], [0] * len(members)
    step = 0
    for epoch in range(1, max_epochs + 1):
        drawn = [_epoch_rows(members[one], texts, per_epoch, generators[one]) for one in active]
        for batch in common.permutation(per_epoch):
            factor = step / max(1, warm) if step < warm else (steps - step) / max(1, steps - warm)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            places = [rows[batch] for rows in drawn]
            _step(stack, optimizer, [members[one] for one in active], places, texts)
            step += 1
        logits = _predict(stack, texts, judge.rows, fits.tokens)
        figures = [_figures(one, judge) for one in logits]
        weights = {name: tensor.detach() for name, tensor in stack.weights.items()} if fits.keep_weights else {}
        for place, one in enumerate(active):
            member = members[one]
            member.epochs.append(figures[place])
            bad[one] += 1
            if figures[place]["validation loss"] < lowest[one]:
                lowest[one], bad[one], member.best_epoch = figures[place]["validation loss"], 0, epoch
                member.best = logits[place].half().cpu().numpy()
                if fits.keep_weights:
                    member.end = {name: tensor[place].clone() for name, tensor in weights.items()}
        going = [place for place, one in enumerate(active) if bad[one] <= PATIENCE]
        if not going:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            _keep(stack, optimizer, torch.tensor(going, device=device))
    del optimizer, stack


def _start(members: Sequence[Member], pretrained: Weights, classes: int, device: torch.device) -> Weights:
    width = pretrained["pool.b"].shape[-1]
    fresh = []
    for member in members:
        generator = torch.Generator().manual_seed(member.seed)
        head = torch.randn(width, classes, generator=generator) * 0.02
        own = {**pretrained, "head.w": head.to(device), "head.b": torch.zeros(1, classes, device=device)}
        fresh.append(member.start or own)
    return {name: torch.stack([one[name].to(device) for one in fresh]) for name in fresh[0]}


def _optimizer(stack: Stack, rate: float) -> torch.optim.AdamW:
    groups = []
    for is_head in (False, True):
        for decays in (True, False):
            chosen = [
                tensor
                for name, tensor in stack.weights.items()
                if (name.startswith("head"), name.endswith((".w", "words", "positions")) and "norm" not in name)
                == (is_head, decays)
            ]
            peak = rate * (HEAD_FACTOR if is_head else 1.0)
            groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": DECAY if decays else 0.0})
    return torch.optim.AdamW(groups, fused=True)


def _keep(stack: Stack, optimizer: torch.optim.AdamW, places: torch.Tensor) -> None:
    """Drop the members that have stopped, with the optimizer's memory of them."""
    names = {id(tensor): name for name, tensor in stack.weights.items()}
    state = {names[id(tensor)]: value for tensor, value in optimizer.state.items()}
    in_groups = [[names[id(tensor)] for tensor in group["params"]] for group in optimizer.param_groups]
    stack.keep(places)
    optimizer.state.clear()
    for group, chosen in zip(optimizer.param_groups, in_groups, strict=True):
        group["params"] = [stack.weights[name] for name in chosen]
    for name, value in state.items():
        moments = {key: value[key][places] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[stack.weights[name]] = {"step": value["step"], **moments}


def _epoch_rows(member: Member, texts: Texts, batches: int, drawn: np.random.Generator) -> list[np.ndarray]:
    """Places of a member's rows in the batches of an epoch: sorted by length within pools, the shortest first."""
    order = drawn.permutation(len(member.rows))
    order = np.resize(order, batches * BATCH)
    found: list[np.ndarray] = []
    for start in range(0, len(order), BATCH * POOL_BATCHES):
        pool = order[start : start + BATCH * POOL_BATCHES]
        pool = pool[np.argsort(texts.lengths[member.rows[pool]], kind="stable")]
        found += np.split(pool, len(pool) // BATCH)
    return found


def _step(
    stack: Stack, optimizer: torch.optim.AdamW, members: Sequence[Member], places: Sequence[np.ndarray], texts: Texts
) -> None:
    device = texts.ids.device
    rows = np.stack([member.rows[place] for member, place in zip(members, places, strict=True)])
    lengths = texts.lengths[rows]
    length = _padded(lengths.max())
    ids = texts.ids[torch.from_numpy(rows).to(device)][:, :, :length]
    logits = stack.logits(ids, torch.from_numpy(lengths).to(device), 0.1)
    targets = torch.stack([m.targets[torch.from_numpy(p).to(device)] for m, p in zip(members, places, strict=True)])
    losses = -(targets * logits.log_softmax(-1)).sum(-1)
    if any(member.weights is not None for member in members):
        ones = np.ones(max(len(member.rows) for member in members))
        weights = [(ones if m.weights is None else m.weights)[p] for m, p in zip(members, places, strict=True)]
        losses = losses * torch.tensor(np.stack(weights), device=device, dtype=losses.dtype)
    optimizer.zero_grad()
    (losses.sum() / BATCH).backward()
    gradients = [tensor.grad for tensor in stack.weights.values() if tensor.grad is not None]
    squares = sum(gradient.float().pow(2).flatten(1).sum(1) for gradient in gradients)
    factors = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))
    optimizer.step()


def _padded(length: int) -> int:
    return math.ceil(int(length) / 8) * 8


@torch.no_grad()
def _predict(stack: Stack, texts: Texts, rows: np.ndarray, tokens: int) -> torch.Tensor:
    """Logits of the same texts by all members, shape (members, n, classes)."""
    device = texts.ids.device
    order = np.argsort(texts.lengths[rows], kind="stable")
    found = torch.empty(stack.members, len(rows), stack.weights["head.b"].shape[-1], device=device)
    start = 0
    while start < len(order):
        longest = _padded(texts.lengths[rows[order[min(start + 255, len(order) - 1)]]])
        many = max(1, min(256, 2 * tokens // (longest * stack.members)))
        part = order[start : start + many]
        lengths = texts.lengths[rows[part]]
        ids = texts.ids[torch.from_numpy(rows[part]).to(device)][None, :, : _padded(lengths.max())]
        found[:, torch.from_numpy(part).to(device)] = stack.logits(ids, torch.from_numpy(lengths)[None].to(device), 0.0)
        start += many
    return found


def _figures(logits: torch.Tensor, judge: Judge) -> dict[str, float]:
    number, tests = len(judge.validation), len(judge.test)
    validation, test = logits[:number], logits[number : number + tests]
    entropies = torch.stack(
        [torch.nn.functional.cross_entropy(validation / t, judge.validation) for t in TEMPERATURES.tolist()]
    )
    predicted = test.argmax(-1)
    right = torch.bincount(judge.test[predicted == judge.test], minlength=judge.classes)
    gold = torch.bincount(judge.test, minlength=judge.classes)
    f1 = 2 * right / (gold + torch.bincount(predicted, minlength=judge.classes)).clamp(min=1)
    values = torch.stack(
        [
            torch.nn.functional.cross_entropy(validation, judge.validation),
            entropies.min(),
            (validation.argmax(-1) == judge.validation).float().mean(),
            torch.nn.functional.cross_entropy(test, judge.test),
            (predicted == judge.test).float().mean(),
            f1[gold > 0].mean(),
            (f1 * gold).sum() / gold.sum(),
        ]
    ).tolist()
    names = ("validation loss", "calibrated", "validation accuracy", "test loss", "accuracy", "macro F1", "weighted F1")
    return dict(zip(names, values, strict=True))
