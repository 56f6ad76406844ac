"""What makes a fit fast changes nothing else: occurring tokens only, pooled dropout, attention in parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig, RobertaConfig

from pgkd_agent.student import dropout as dropout_module
from pgkd_agent.student import trainer
from pgkd_agent.student.batching import encode, pad
from pgkd_agent.student.dropout import ATTENTION, MaskPool, PooledDropout, pooled_dropout
from pgkd_agent.student.precision import Trainee
from pgkd_agent.student.trainer import EncodedRows, FitSettings, fit
from pgkd_agent.student.vocabulary import OccurringTokens, only_occurring_tokens
from tests.integration.conftest import TOPICS, sentences

ROWS = sentences(6, 0)
CPU = torch.device("cpu")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.fixture
def tokenizer(tiny_student: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_student)


@pytest.fixture
def model(tiny_student: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        tiny_student,
        num_labels=len(TOPICS),
        ignore_mismatched_sizes=True,
        attn_implementation="eager",
        dtype=torch.float32,
    )


def rows(tokenizer: Any) -> EncodedRows:
    labels = list(TOPICS)
    return EncodedRows(encode(tokenizer, [row.text for row in ROWS], 64), [labels.index(row.label) for row in ROWS])


def settings(**changes: Any) -> FitSettings:
    values = {
        "learning_rate": 1e-3,
        "batch_size": 8,
        "max_epochs": 2,
        "patience": 5,
        "warmup_share": 0.1,
        "weight_decay": 0.01,
        "head_factor": 1.0,
        "bf16": False,
    }
    return FitSettings(**{**values, **changes})


def fitted(model: Any, tokenizer: Any, **changes: Any) -> dict[str, torch.Tensor]:
    model = copy.deepcopy(model)
    fit(model, tokenizer, rows(tokenizer), rows(tokenizer), settings(**changes), seed=1)
    return dict(model.state_dict())


def test_tokens_that_occur_learn_the_same_and_others_keep_their_embedding(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.get_input_embeddings().weight.detach().clone()
    ours = fitted(model, tokenizer, weight_decay=0.0)
    monkeypatch.setattr(trainer, "only_occurring_tokens", lambda *_: _nothing())
    whole = fitted(model, tokenizer, weight_decay=0.0)
    assert ours.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(ours[name], whole[name], atol=1e-6, rtol=1e-5)
    after = ours["bert.embeddings.word_embeddings.weight"]
    seen = sorted({token for ids in rows(tokenizer).ids for token in ids})
    unseen = [token for token in range(len(before)) if token not in seen]
    assert torch.equal(after[unseen], before[unseen]) and not torch.equal(after[seen], before[seen])


class _nothing:
    def __enter__(self) -> MaskPool:
        return MaskPool(0)

    def __exit__(self, *_: object) -> None: ...


def test_a_model_is_as_it_was_after_an_error(model: Any, tokenizer: Any) -> None:
    embeddings, layers = model.get_input_embeddings(), [type(layer) for layer in model.modules()]
    with pytest.raises(KeyError), only_occurring_tokens(model, 0, [[5, 6]]), pooled_dropout(model, 1):
        assert isinstance(model.get_input_embeddings(), OccurringTokens)
        assert any(isinstance(layer, PooledDropout) for layer in model.modules())
        assert model.config._attn_implementation == ATTENTION
        raise KeyError
    assert model.get_input_embeddings() is embeddings
    assert [type(layer) for layer in model.modules()] == layers and model.config._attn_implementation == "eager"


@pytest.mark.parametrize("config", [RobertaConfig, DistilBertConfig])
def test_other_encoders_answer_the_same_inside(config: Any, tokenizer: Any) -> None:
    """Roberta counts positions by its padding id, so the ids may not change on the way."""
    torch.manual_seed(0)
    names = SMALL if config is RobertaConfig else {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    made = config(vocab_size=len(tokenizer), max_position_embeddings=80, pad_token_id=0, num_labels=4, **names)
    model = AutoModelForSequenceClassification.from_config(made, attn_implementation="eager").eval()
    encoded = rows(tokenizer).ids
    batch = pad(tokenizer, encoded[:8], CPU)
    expected = model(**batch).logits
    with only_occurring_tokens(model, 0, encoded), pooled_dropout(model, 1):
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-5, rtol=1e-5)


def test_an_embedding_of_another_kind_is_left_alone(model: Any) -> None:
    model.get_input_embeddings().max_norm = 1.0
    whole = model.get_input_embeddings()
    with only_occurring_tokens(model, 0, [[5]]):
        assert model.get_input_embeddings() is whole


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_pooled_mask_keeps_its_share_with_its_scale(p: float) -> None:
    pool = MaskPool(3)
    mask = pool.mask((500, 1000), torch.float32, p)
    kept = mask[mask > 0]
    assert kept.unique().tolist() == pytest.approx([1 / (1 - p)])
    assert len(kept) / mask.numel() == pytest.approx(1 - p, abs=0.003)
    assert mask.mean().item() == pytest.approx(1, abs=0.005)
    rows_kept = (mask > 0).float()
    assert abs(torch.corrcoef(rows_kept[:50]).fill_diagonal_(0)).mean() < 0.05  # rows know nothing of each other


def test_masks_follow_the_seed_and_change_from_call_to_call_and_epoch_to_epoch() -> None:
    def masks(seed: int) -> list[torch.Tensor]:
        pool = MaskPool(seed)
        taken = [pool.mask((40,), torch.float32, 0.5) for _ in range(3)]
        pool.renew()
        return [*taken, pool.mask((40,), torch.float32, 0.5)]

    first, again, other = masks(1), masks(1), masks(2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len({tuple(mask.tolist()) for mask in first}) == 4


def test_more_than_the_pool_holds_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout_module, "POOL", 64)
    torch.manual_seed(0)
    mask = MaskPool(1).mask((100, 100), torch.float32, 0.25)
    assert mask.shape == (100, 100) and mask.mean().item() == pytest.approx(1, abs=0.05)


def test_gradients_flow_through_what_was_kept_and_evaluation_drops_nothing() -> None:
    layer = PooledDropout(0.5, MaskPool(1))
    x = torch.ones(1000, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert torch.equal(layer.eval()(x), x)


def test_attention_is_that_of_transformers(model: Any, tokenizer: Any) -> None:
    batch = pad(tokenizer, [*rows(tokenizer).ids[:6], [2, 7, 3]], CPU)  # with padding
    model.eval()
    expected = model(**batch).logits
    with pooled_dropout(model, 1):
        assert model.config._attn_implementation == ATTENTION
        torch.testing.assert_close(model.eval()(**batch).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_attention_in_parts_is_attention_at_once(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, p: float
) -> None:
    """Forward and backward; a part that is computed again takes the masks it had."""
    monkeypatch.setattr(MaskPool, "mask", lambda _self, shape, dtype, _p: _stripes(shape, dtype))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = p
    batch = pad(tokenizer, rows(tokenizer).ids[:7], CPU)

    def gradients(largest: int) -> list[torch.Tensor]:
        monkeypatch.setattr(dropout_module, "LARGEST_SCORES", largest)
        model.zero_grad()
        with pooled_dropout(model, 1):
            model.train()(**batch).logits.square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    for at_once, in_parts in zip(gradients(10**9), gradients(1), strict=True):
        torch.testing.assert_close(in_parts, at_once, atol=1e-5, rtol=1e-4)


def _stripes(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A mask that does not depend on how many texts there are."""
    last = torch.arange(shape[-1]) % 3 != 0
    return last.to(dtype).expand(*shape) * 1.5


def test_bf16_learns_in_float32(model: Any, tokenizer: Any) -> None:
    """Steps far below the resolution of bfloat16 add up; the weights are those of a float32 fit but for rounding."""
    model.eval()
    exact, rounded = fitted(model, tokenizer), fitted(model, tokenizer, bf16=True)
    for name, tensor in exact.items():
        assert rounded[name].dtype == tensor.dtype
        torch.testing.assert_close(rounded[name], tensor, atol=2e-2, rtol=0.1)
    tiny = fitted(model, tokenizer, bf16=True, learning_rate=1e-7, weight_decay=0.0)
    start = dict(model.state_dict())
    moved = [not torch.equal(tiny[name], start[name]) for name in tiny if "classifier" in name or "layer.0" in name]
    assert all(moved)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0

    def gradient(max_tokens: int) -> torch.Tensor:
        monkeypatch.setattr(trainer, "MAX_TOKENS", {"cpu": max_tokens})
        trainee = Trainee(copy.deepcopy(model), bf16)
        trainee.computing.train()
        parameters = [torch.nn.Parameter(torch.zeros(1))]
        trainer._step(trainee, tokenizer, rows(tokenizer), list(range(12)), torch.optim.SGD(parameters, lr=0.0))
        return trainee._flat.clone()

    whole, parts = gradient(10**6), gradient(30)
    assert whole.norm() > 0
    torch.testing.assert_close(parts, whole, atol=2e-2 if bf16 else 1e-6, rtol=5e-2 if bf16 else 1e-4)


def test_a_long_gradient_is_shortened_and_a_short_one_left(model: Any) -> None:
    trainee = Trainee(model, bf16=False)
    trainee._flat.normal_()
    for length, expected in ((5.0, 1.0), (0.5, 0.5)):
        trainee._flat.mul_(length / trainee._flat.norm())
        trainee.clip_gradients(1.0)
        assert trainee._flat.norm().item() == pytest.approx(expected, rel=1e-3)
    trainee.release()
    assert all(weight.grad is None for weight in model.parameters())
