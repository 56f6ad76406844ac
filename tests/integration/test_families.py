"""Twelve families of encoders, each as it is met in the wild: it trains and answers as transformers does, or says why.

All models are random and tiny. They share one tokenizer of words, but for XLNet, whose segments are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline

from pgkd_agent.errors import ConfigError
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Label
from tests.integration.conftest import FILLER, TOPICS, sentences, tiny_config

TAXONOMY = tuple(Label(name) for name in TOPICS)
SPECIAL = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
WORDS = [*SPECIAL, *FILLER, *(word for topic in TOPICS.values() for word in topic)]
POSITIONS = 16
LONG = " ".join(["apple", "with", "my", "hammer"] * 20)
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DISTIL = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
XLNET = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2}
OFFSET = {**SMALL, "max_position_embeddings": POSITIONS + 2}
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "Bert": (SMALL, POSITIONS),
    "DistilBert": (DISTIL, POSITIONS),
    "Roberta": (OFFSET, POSITIONS),
    "XLMRoberta": (OFFSET, POSITIONS),
    "DebertaV2": ({**SMALL, "pos_att_type": ["c2p", "p2c"], "relative_attention": True}, POSITIONS),
    "Electra": ({**SMALL, "embedding_size": 16}, POSITIONS),
    "Albert": ({**SMALL, "embedding_size": 16}, POSITIONS),
    "MPNet": (OFFSET, POSITIONS),
    "XLNet": (XLNET, 512),
    "Longformer": ({**OFFSET, "attention_window": 4}, POSITIONS),
    "ModernBert": ({**SMALL, "cls_token_id": 0, "sep_token_id": 2}, POSITIONS),
    "GPT2": ({**GPT, "bos_token_id": 0, "eos_token_id": 2}, POSITIONS),
}
"""By the name of its classes: what makes it small, and the tokens that it then takes; 512 where it knows no limit."""


def tokenizer_of(family: str) -> PreTrainedTokenizerFast:
    """Of words, without a limit of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    template = "$A [SEP] [CLS]:2" if family == "XLNet" else "[CLS] $A [SEP]"
    words.post_processor = processors.TemplateProcessing(template, None, [("[CLS]", 0), ("[SEP]", 2)])
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "pad", "sep", "unk", "mask")}
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if family in ("Bert", "Albert", "XLNet") else [])]
    side = "left" if family == "XLNet" else "right"
    return PreTrainedTokenizerFast(tokenizer_object=words, padding_side=side, model_input_names=names, **named)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Its name, and a folder with a classifier of three other classes."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "pad_token_id": 1, "num_labels": 3, "max_position_embeddings": POSITIONS}
    sizes["initializer_range"] = 0.5  # so that what is read wrongly shows in the answers
    if name == "XLNet":
        del sizes["max_position_embeddings"]
    config = getattr(transformers, f"{name}Config")(**{**sizes, **FAMILIES[name][0]})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer_of(name).save_pretrained(folder)
    return name, folder


def copy_of(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    """The folder with other weights."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, to / "model.safetensors", {"format": "pt"}
    )
    return to


def trained(folder: Path, out: Path) -> tuple[TorchStudent, StudentClassifier]:
    student = TorchStudent(tiny_config(folder, **{"student.max_epochs": 1}).student, TAXONOMY, seed=1)
    rows = [*sentences(2, 0), type(sentences(1, 0)[0])(LONG, "fruit")]
    student.fit(rows, sentences(1, 1), 0)
    student.save(out)
    return student, StudentClassifier.load(out)


def assert_answers_like_transformers(student: TorchStudent, loaded: StudentClassifier, folder: Path) -> None:
    texts = ["apple with my banana", "dog", LONG]
    expected = pipeline("text-classification", model=str(folder), top_k=None, device="cpu")(texts, truncation=True)
    for text, scores, live in zip(texts, expected, student.predict(texts).tolist(), strict=True):
        scores = {item["label"]: item["score"] for item in scores}
        assert loaded.invoke(text).probabilities == pytest.approx(scores, abs=1e-5)
        assert dict(zip(TOPICS, live, strict=True)) == pytest.approx(scores, abs=1e-5)
    batch = loaded.batch(texts)
    assert [item.probabilities for item in batch] == [
        pytest.approx(loaded.invoke(text).probabilities, abs=1e-5) for text in texts
    ]


def test_it_trains_with_a_head_of_another_size_and_no_limit_stated(family: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = family
    student, loaded = trained(folder, tmp_path / "out")
    assert student.description["max_length"] == FAMILIES[name][1]
    assert_answers_like_transformers(student, loaded, tmp_path / "out")


def test_half_precision_and_no_head(family: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = family
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float16)
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer_of(name).save_pretrained(tmp_path / "encoder")
    student, loaded = trained(tmp_path / "encoder", tmp_path / "out")
    assert_answers_like_transformers(student, loaded, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"has no trained head: .* is missing"):
        StudentClassifier.load(tmp_path / "encoder")


def test_weights_under_other_names_are_refused(family: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = family
    wrapped = copy_of(folder, tmp_path / "wrapped", lambda weights: {f"module.{k}": v for k, v in weights.items()})
    for load in (lambda: trained(wrapped, tmp_path / "out"), lambda: StudentClassifier.load(wrapped)):
        with pytest.raises(ConfigError, match=r"holds weights under other names: module\.\S+ where \S+ is expected"):
            load()


def test_tokens_without_an_embedding_are_refused(family: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = family
    added = copy_of(folder, tmp_path / "added", dict)
    tokenizer = tokenizer_of(name)
    tokenizer.add_tokens(["<order>"])
    tokenizer.save_pretrained(added)
    for load in (lambda: trained(added, tmp_path / "out"), lambda: StudentClassifier.load(added)):
        with pytest.raises(
            ConfigError, match=f"has embeddings of {len(WORDS)} tokens, and its tokenizer {len(WORDS) + 1}"
        ):
            load()


def test_without_a_pad_token_or_a_tokenizer(family: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = family
    padless, bare = (copy_of(folder, tmp_path / which, dict) for which in ("padless", "bare"))
    tokenizer = tokenizer_of(name)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(padless)
    for file in bare.glob("token*"):
        file.unlink()
    for without, message in ((padless, "has no pad token"), (bare, "tokenizer")):
        for load in (lambda: trained(without, tmp_path / "out"), lambda: StudentClassifier.load(without)):  # noqa: B023
            with pytest.raises(ConfigError, match=message):
                load()
