"""Students that start from what a sentence encoder knows: the layer that reads a text, and the head."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.head_start import centroid_head, class_texts, solve_ridge
from pgkd_agent.student.recipe import pooling_of, recipe_for
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.student.trainer import EncodedRows
from pgkd_agent.types import Example, Label
from tests.integration.conftest import TOPICS, sentences, tiny_config

TAXONOMY = tuple(Label(name) for name in TOPICS)
TRAIN, VALIDATION = sentences(20, 0), sentences(10, 1)
TEXTS = [row.text for row in VALIDATION]
GOLD = np.array([list(TOPICS).index(row.label) for row in VALIDATION])
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": WIDTH,
    "roberta": WIDTH,
    "xlm-roberta": WIDTH,
    "mpnet": WIDTH,
    "electra": {**WIDTH, "embedding_size": 32},
    "albert": {**WIDTH, "embedding_size": 32},
    "deberta-v2": WIDTH,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
}


def encoder(tiny_student: Path, folder: Path, family: str = "bert", pooling: str = "mean") -> Path:
    """A sentence encoder as sentence-transformers lays it out; the tokenizer is the tiny student's.

    Its weights are random, but that words of a topic are like each other.
    """
    from transformers import AutoConfig, AutoModel

    shutil.copytree(tiny_student, folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    vocabulary = len((tiny_student / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        max_position_embeddings=80,
        pad_token_id=0,
        initializer_range=0.3,
        **FAMILIES[family],
    )
    for special in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        setattr(config, special, None)
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    ids = {word: row for row, word in enumerate((tiny_student / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    with torch.no_grad():
        for words in TOPICS.values():
            topic = torch.randn(32)
            for word in words:
                model.get_input_embeddings().weight[ids[word]] = topic + 0.3 * torch.randn(32)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))
    return folder


@pytest.fixture
def sentence_encoder(tiny_student: Path, tmp_path: Path) -> Path:
    return encoder(tiny_student, tmp_path / "encoder")


def started(folder: Path, **flags: Any) -> TorchStudent:
    """A student before its first epoch."""
    config = tiny_config(folder, **flags)
    student = TorchStudent(config.student, TAXONOMY, seed=1)
    rows = student._rows(TRAIN)
    assert student._start is not None
    student._start.apply(rows.ids, rows.labels)
    return student


def accuracy(student: TorchStudent) -> float:
    return float((student.predict(TEXTS).argmax(axis=1) == GOLD).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_started_student_knows_the_classes_before_it_is_trained(
    tiny_student: Path, tmp_path: Path, family: str
) -> None:
    student = started(encoder(tiny_student, tmp_path / family, family))
    assert accuracy(student) > 0.45  # by chance .25; these encoders have random weights


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_what_the_head_is_given_follows_the_embedding(tiny_student: Path, tmp_path: Path, pooling: str) -> None:
    student = started(encoder(tiny_student, tmp_path / "encoder", pooling=pooling))
    texts = [row.text for row in TRAIN]
    given = torch.from_numpy(student.head_inputs(texts))
    model, batch = student._model, student._tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.eval().base_model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    embeddings = tokens[:, 0] if pooling == "cls" else (tokens * mask).sum(dim=1) / mask.sum(dim=1)
    center = normalize(embeddings).mean(dim=0)
    likeness = cosine_similarity(normalize(embeddings) - center, given - given.mean(dim=0)).mean()
    untouched = cosine_similarity(normalize(embeddings) - center, (tokens[:, 0] - tokens[:, 0].mean(dim=0))).mean()
    assert likeness > 0.7
    assert pooling == "cls" or likeness > untouched


def test_a_class_without_rows_starts_from_its_name(sentence_encoder: Path) -> None:
    config = tiny_config(sentence_encoder)
    named = (*TAXONOMY[:3], Label("rain snow storm wind"))  # no row is of this class
    student = TorchStudent(config.student, named, seed=1)
    rows = student._rows([row for row in TRAIN if row.label != "weather"])
    assert student._start is not None
    student._start.apply(rows.ids, rows.labels)
    weather = [" ".join(words) for words in zip(TOPICS["weather"][:4], TOPICS["weather"][1:5], strict=True)]
    assert (student.predict(weather).argmax(axis=1) == 3).mean() >= 0.5
    assert (student.predict([row.text for row in TRAIN if row.label == "fruit"]).argmax(axis=1) == 3).mean() < 0.2


def test_names_and_descriptions_stand_for_their_class() -> None:
    labels = [Label("card_not_working"), Label("SPORTS"), Label("iPad", "a tablet"), Label("R&D")]
    assert class_texts(labels) == ["card not working", "sports", "iPad: a tablet", "r&d"]


def test_plain_transformers_gives_the_same_labels(sentence_encoder: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    gentle = tiny_config(sentence_encoder, **{"student.learning_rate": 2e-3, "student.max_epochs": 12})
    student = TorchStudent(gentle.student, TAXONOMY, seed=1)
    student.fit(TRAIN, VALIDATION, 0)
    assert accuracy(student) > 0.8
    student.save(tmp_path / "model")
    ours = StudentClassifier.load(tmp_path / "model", device="cpu").batch(TEXTS)
    plain = pipeline("text-classification", model=str(tmp_path / "model"), device=-1)(TEXTS, truncation=True)
    assert [item["label"] for item in plain] == [item.label for item in ours]
    np.testing.assert_allclose([item["score"] for item in plain], [item.confidence for item in ours], atol=1e-5)
    assert pooling_of(str(tmp_path / "model")) is None  # a classifier by now: it goes on from its head


def test_a_fit_from_scratch_starts_from_the_rows_that_it_is_given(sentence_encoder: Path) -> None:
    begun: list[np.ndarray] = []

    class Watched(TorchStudent):
        def _rows(self, rows: Sequence[Example]) -> EncodedRows:
            if list(rows) == VALIDATION:  # what a fit asks for last before its first epoch
                begun.append(self.predict(TEXTS))
            return super()._rows(rows)

    settings = tiny_config(sentence_encoder, **{"student.max_epochs": 1, "student.soft_labels": 0}).student
    student = Watched(settings, TAXONOMY, seed=1)
    student.fit(TRAIN[:40], VALIDATION, 0)
    student.fit(TRAIN, VALIDATION, 1)
    assert begun[1] == pytest.approx(started(sentence_encoder).predict(TEXTS), abs=1e-4)
    assert begun[0] != pytest.approx(begun[1], abs=1e-2)


def test_the_start_can_be_turned_off(sentence_encoder: Path) -> None:
    at_random = tiny_config(sentence_encoder, **{"student.head_init": "random"}).student
    assert TorchStudent(at_random, TAXONOMY, seed=1)._start is None
    assert recipe_for(at_random).head_init == "random"
    assert recipe_for(tiny_config(sentence_encoder).student).head_init == "centroids"


def test_other_encoders_begin_at_random(config: PGKDConfig) -> None:
    assert TorchStudent(config.student, TAXONOMY, seed=1)._start is None
    assert recipe_for(config.student).head_init == "random"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}', "mean"),
        ('{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}', "cls"),
        ('{"embedding_dimension": 32, "pooling_mode": "mean"}', "mean"),
        (
            '{"pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true}',
            None,
        ),  # two vectors, one after the other
        ('{"pooling_mode_lasttoken": true}', None),
    ],
)
def test_how_an_encoder_reads_a_text_stands_in_its_files(
    sentence_encoder: Path, content: str, expected: str | None
) -> None:
    (sentence_encoder / "1_Pooling" / "config.json").write_text(content)
    assert pooling_of(str(sentence_encoder)) == expected


@pytest.mark.parametrize("content", ["{", "[1]", "7"])
def test_damaged_pooling_is_an_error(sentence_encoder: Path, content: str) -> None:
    (sentence_encoder / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"1_Pooling/config\.json is damaged"):
        pooling_of(str(sentence_encoder))


def test_ridge_regression_finds_a_linear_map_and_shrinks_what_it_cannot_know() -> None:
    torch.manual_seed(0)
    inputs, true = torch.randn(4000, 8), torch.randn(8, 8)
    weights, bias = solve_ridge(inputs + 3, inputs @ true + 1)
    assert torch.allclose((inputs + 3) @ weights + bias, inputs @ true + 1, atol=0.5)
    weights, bias = solve_ridge(torch.ones(5, 8), torch.ones(5, 8) * 2)  # inputs that say nothing
    assert float(weights.abs().max()) < 1e-6 and bias.tolist() == pytest.approx([2.0] * 8)


def test_the_head_finds_the_nearest_class_and_is_as_sure_as_rows_left_out_allow() -> None:
    torch.manual_seed(0)
    centers = torch.randn(5, 16)
    labels = torch.arange(4).repeat(30)  # the fifth class has no row

    def fitted(noise: float) -> tuple[float, float, int]:
        rows, new = (centers[labels] + noise * torch.randn(len(labels), 16) for _ in range(2))
        weights, bias = centroid_head(rows, labels, centers + 0.1 * torch.randn(5, 16))
        probabilities = (new @ weights.T + bias).softmax(dim=1)
        nameless = (centers[4] @ weights.T + bias).argmax()
        right = (probabilities.argmax(dim=1) == labels).float().mean()
        return float(right), float(probabilities.amax(dim=1).mean()), int(nameless)

    clear, noisy = fitted(0.3), fitted(3.0)
    assert clear[0] > 0.97 and clear[2] == 4
    assert clear[1] > 0.9 and noisy[1] < noisy[0] + 0.15
