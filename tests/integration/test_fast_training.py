"""What makes a fit fast changes nothing else: occurring tokens only, pooled dropout, attention in parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    RobertaConfig,
)

from pgkd_agent.student import accelerated, trainer
from pgkd_agent.student.accelerated import dropout as dropout_module
from pgkd_agent.student.accelerated.dropout import ATTENTION, MaskPool, PooledDropout, pooled_dropout
from pgkd_agent.student.accelerated.precision import Trainee
from pgkd_agent.student.accelerated.vocabulary import OccurringTokens, only_occurring_tokens
from pgkd_agent.student.batching import encode, pad
from pgkd_agent.student.contrast import Contrast
from pgkd_agent.student.recipe import TrainingRecipe
from pgkd_agent.student.trainer import EncodedRows, fit
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


def recipe(**changes: Any) -> TrainingRecipe:
    values = {
        "head_init": "random",
        "learning_rates": (1e-3,),
        "train_batch_size": 8,
        "max_epochs": 2,
        "head_factor": 1.0,
        "label_smoothing": 0.0,
        "contrastive": 0.0,
        "soft_labels": 0.0,
    }
    return TrainingRecipe(**{**values, **changes})


def fitted(model: Any, tokenizer: Any, bf16: bool = False, **changes: Any) -> dict[str, torch.Tensor]:
    model = copy.deepcopy(model)
    fit(model, tokenizer, rows(tokenizer), rows(tokenizer), recipe(**changes), seed=1, bf16=bf16)
    return dict(model.state_dict())


def test_tokens_that_occur_learn_the_same_and_others_keep_their_embedding(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.get_input_embeddings().weight.detach().clone()
    monkeypatch.setattr(trainer, "WEIGHT_DECAY", 0.0)  # the only part that tokens without a gradient would have
    ours = fitted(model, tokenizer)
    monkeypatch.setattr(accelerated, "only_occurring_tokens", lambda *_: _nothing())
    whole = fitted(model, tokenizer)
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


def small(config: Any, tokenizer: Any, **changes: Any) -> Any:
    """A small encoder of another architecture, without dropout."""
    torch.manual_seed(0)
    names = dict(SMALL)
    if config is DistilBertConfig:
        names = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    made = config(
        vocab_size=len(tokenizer), max_position_embeddings=80, pad_token_id=0, num_labels=4, **names, **changes
    )
    for name in vars(made):
        if "dropout" in name and isinstance(getattr(made, name), float):
            setattr(made, name, 0.0)
    return AutoModelForSequenceClassification.from_config(made, attn_implementation="eager")


def one_class(tokenizer: Any) -> EncodedRows:
    """So that gradients of rows add up; those of balanced classes cancel out before training, and leave rounding."""
    encoded = rows(tokenizer)
    return EncodedRows(encoded.ids, [0] * len(encoded.ids))


def gradients(model: Any, tokenizer: Any, bf16: bool) -> dict[str, torch.Tensor]:
    """After a step on all rows at a rate of 0."""
    model = copy.deepcopy(model)
    encoded = one_class(tokenizer)
    with only_occurring_tokens(model, 0, encoded.ids):
        trainee = Trainee(model, bf16)
        with pooled_dropout(trainee.computing, 1):
            trainee.computing.train()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            trainer._step(trainee, tokenizer, encoded, list(range(len(encoded.ids))), optimizer, 0.0, Contrast(0.0))
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


ENCODERS = [BertConfig, RobertaConfig, DistilBertConfig, ElectraConfig, AlbertConfig, ModernBertConfig]


@pytest.mark.parametrize("config", ENCODERS)
def test_gradients_are_those_of_plain_training(config: Any, tokenizer: Any) -> None:
    """Of a batch in float32 with the model as it is, clipped; bf16 points the same way."""
    changes = {"local_attention": 4, "global_attn_every_n_layers": 2} if config is ModernBertConfig else {}
    model = small(config, tokenizer, **changes)
    encoded = one_class(tokenizer)
    plain = copy.deepcopy(model).train()
    logits = plain(**pad(tokenizer, encoded.ids, CPU)).logits
    cross_entropy(logits, torch.tensor(encoded.labels)).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), trainer.GRADIENT_CLIP)
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    embeddings = next(name for name in expected if "word_embeddings" in name or "tok_embeddings" in name)
    seen = sorted({token for ids in encoded.ids for token in ids} | {0})
    expected[embeddings] = expected[embeddings][seen]
    exact, rounded = gradients(model, tokenizer, bf16=False), gradients(model, tokenizer, bf16=True)
    assert exact.keys() == rounded.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(exact[name], gradient, atol=1e-5, rtol=1e-3)
        if gradient.norm() > 1e-3:  # a key's bias has none but for rounding
            assert cosine_similarity(rounded[name].flatten(), gradient.flatten(), dim=0) > 0.98, name
            assert rounded[name].norm() == pytest.approx(gradient.norm().item(), rel=0.1), name


def test_many_gradients_of_one_embedding_add_up_in_bf16(model: Any, tokenizer: Any) -> None:
    """Every token has the same type: one by one, addends of 2,000 tokens would be lost to rounding."""
    copied = Trainee(model, bf16=True).computing
    types = copied.bert.embeddings.token_type_embeddings
    types(torch.zeros(2000, dtype=torch.int64)).sum().backward()
    assert types.weight.grad[0].float().mean().item() == pytest.approx(2000, rel=0.01)


def test_buffers_of_the_copy_keep_their_precision(tokenizer: Any) -> None:
    copied = Trainee(small(ModernBertConfig, tokenizer), bf16=True).computing
    buffers = [buffer for _, buffer in copied.named_buffers() if buffer.is_floating_point()]
    assert buffers and all(buffer.dtype == torch.float32 for buffer in buffers)
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.bfloat16}


def test_bf16_learns_in_float32(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps far below the resolution of bfloat16 add up, in the direction of a float32 fit."""
    monkeypatch.setattr(trainer, "WEIGHT_DECAY", 0.0)
    start = dict(model.state_dict())
    options = {"learning_rates": (1e-6,), "max_epochs": 4}
    exact, rounded = fitted(model, tokenizer, **options), fitted(model, tokenizer, bf16=True, **options)
    name = "bert.encoder.layer.1.output.dense.weight"
    step, other = (weights[name] - start[name] for weights in (exact, rounded))
    assert rounded[name].dtype == torch.float32 and 0 < other.abs().max() < 1e-4
    assert cosine_similarity(step.flatten(), other.flatten(), dim=0) > 0.6  # other dropout masks at other precision


@pytest.mark.parametrize("bf16", [False, True])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, bf16: bool
) -> None:
    model = small(BertConfig, tokenizer)
    whole = gradients(model, tokenizer, bf16)
    monkeypatch.setattr(trainer, "max_tokens", lambda _device: 30)
    parts = gradients(model, tokenizer, bf16)
    for name, gradient in whole.items():
        if gradient.norm() > 1e-3:
            cosine = cosine_similarity(parts[name].flatten(), gradient.flatten(), dim=0)
            assert cosine > (0.99 if bf16 else 0.99999), name


def test_weights_that_take_no_part_stay_as_they_are(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gradient, no decay."""
    monkeypatch.setattr(trainer, "WEIGHT_DECAY", 0.5)
    model = small(BertConfig, tokenizer)
    model.spare = nn.Linear(32, 2)
    before = model.spare.weight.detach().clone()
    after = fitted(model, tokenizer, bf16=True)
    assert torch.equal(after["spare.weight"], before)


@pytest.mark.parametrize("bf16", [False, True])
def test_a_long_gradient_is_shortened_and_a_short_one_left(model: Any, bf16: bool) -> None:
    trainee = Trainee(model, bf16)
    for length, expected in ((5.0, 1.0), (0.5, 0.5)):
        trainee.begin_step()
        for computes in trainee.computing.parameters():
            computes.grad = torch.ones_like(computes)
        size = sum(p.numel() for p in model.parameters()) ** 0.5
        for computes in trainee.computing.parameters():
            computes.grad.mul_(length / size)
        trainee.collect_gradients()
        trainee.clip_gradients(1.0)
        norm = sum(p.grad.double().square().sum() for p in model.parameters()) ** 0.5
        assert float(norm) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("bf16", [False, True])
def test_an_interrupted_fit_leaves_a_whole_model_without_gradients(model: Any, tokenizer: Any, bf16: bool) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    keys = list(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        fit(model, tokenizer, rows(tokenizer), rows(tokenizer), recipe(), seed=1, on_epoch=interrupt, bf16=bf16)
    assert all(weight.grad is None for weight in model.parameters())
    assert list(model.state_dict()) == keys and model.config._attn_implementation == "eager"
    assert type(model.get_input_embeddings()) is nn.Embedding


def test_a_token_that_does_not_occur_is_an_error_within_a_fit(model: Any) -> None:
    with only_occurring_tokens(model, 0, [[5, 6]]), pytest.raises(IndexError):
        model.get_input_embeddings()(torch.tensor([7]))


def test_only_plain_attention_is_replaced(tokenizer: Any) -> None:
    for config, name in ((AlbertConfig, "eager"), (ModernBertConfig, "eager"), (BertConfig, ATTENTION)):
        model = small(config, tokenizer)
        with pooled_dropout(model, 1):
            assert model.config._attn_implementation == name
