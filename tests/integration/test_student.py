"""The student for real: a small BERT that is trained, put back, saved and loaded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgkd_agent.config import PGKDConfig, StudentSettings
from pgkd_agent.errors import ConfigError, StorageError, StudentDivergedError
from pgkd_agent.student import trainer
from pgkd_agent.student.batching import CHARS_PER_TOKEN, encode, pad, training_batches
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.inference import predict_logits
from pgkd_agent.student.loading import choose_device, load_tokenizer, use_bf16
from pgkd_agent.student.recipe import recipe_for
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, Label
from tests.integration.conftest import TOPICS, sentences, tiny_config

TAXONOMY = tuple(Label(name) for name in TOPICS)
TRAIN, VALIDATION = sentences(20, 0), sentences(5, 1)
TEXTS = [row.text for row in VALIDATION] + ["apple", "the old dog is near the big red hammer with some rain " * 3]


@pytest.fixture
def student(config: PGKDConfig) -> TorchStudent:
    return TorchStudent(config.student, TAXONOMY, seed=1)


def accuracy(student: TorchStudent, rows: list[Example]) -> float:
    names = [label.name for label in TAXONOMY]
    predicted = student.predict([row.text for row in rows]).argmax(axis=1)
    return float(np.mean([names[p] == row.label for p, row in zip(predicted, rows, strict=True)]))


LONG = [
    "apple " * 5000,
    " " * 3000 + "apple dog " * 50,  # blanks are no tokens
    "apple" + " " * 5000 + "dog",
    "x" * 5000,  # one word
    "apple" * 3000 + " dog",
    "苹果 " + "苹" * 5000,
    "apple\tdog\n" * 1000,
    "an apple, a dog; " * 1000,
]


@pytest.mark.parametrize("max_length", [8, 64])
def test_of_a_long_text_the_beginning_gives_the_same_tokens(tiny_student: Path, max_length: int) -> None:
    tokenizer = load_tokenizer(str(tiny_student))
    words = [*TOPICS["fruit"], " ", "unknown", "?!", "a1b2"]
    drawn = random.Random(0)
    mixed = ["".join(drawn.choice(words) + drawn.choice([" ", "  ", "", "-"]) for _ in range(600)) for _ in range(50)]
    for text in [*LONG, *mixed, *TEXTS]:
        expected = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        assert encode(tokenizer, [text], max_length) == [expected], text[:40]


def test_what_is_cut_off_is_not_encoded(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_student))
    seen: list[int] = []

    class Counting:
        truncation_side = "right"

        def __call__(self, texts: list[str], **options: Any) -> Any:
            seen.extend(map(len, texts))
            return tokenizer(texts, **options)

    assert [len(row) for row in encode(Counting(), ["apple " * 100_000, "a dog"], 32)] == [32, 4]
    assert max(seen) <= 32 * CHARS_PER_TOKEN and len(seen) == 2


def test_the_last_layer_makes_the_logits_of_its_inputs(student: TorchStudent) -> None:
    inputs = student.head_inputs(TEXTS)
    layer = student._model.classifier
    logits = torch.from_numpy(inputs) @ layer.weight.T + layer.bias
    assert inputs.shape == (len(TEXTS), layer.in_features)
    assert logits.softmax(dim=1).detach().numpy() == pytest.approx(student.predict(TEXTS), abs=1e-5)


def test_a_row_of_weight_0_teaches_nothing_and_weights_scale_the_loss(config: PGKDConfig) -> None:
    def probabilities(rows: list[Example], weights: list[float] | None) -> np.ndarray:
        student = TorchStudent(config.student, TAXONOMY, seed=1)
        student.fit(rows, VALIDATION, 0, weights)
        return student.predict(TEXTS)

    half = [0.0 if number % 2 else 1.0 for number in range(len(TRAIN))]
    wrong = [Example(row.text, "fruit") if number % 2 else row for number, row in enumerate(TRAIN)]
    assert np.array_equal(probabilities(TRAIN, half), probabilities(wrong, half))
    assert not np.allclose(probabilities(TRAIN, half), probabilities(TRAIN, None), atol=1e-3)
    assert probabilities(TRAIN, [1.0] * len(TRAIN)) == pytest.approx(probabilities(TRAIN, None), abs=1e-3)


def test_smoothed_labels_keep_a_student_from_being_sure(tiny_student: Path) -> None:
    def fitted(smoothing: float) -> tuple[float, float]:
        flags = {"student.learning_rate": 3e-3, "student.max_epochs": 15, "student.label_smoothing": smoothing}
        student = TorchStudent(tiny_config(tiny_student, **flags).student, TAXONOMY, seed=1)
        student.fit(sentences(40, 0), VALIDATION, 0)
        return accuracy(student, VALIDATION), float(student.predict(TEXTS[:-2]).max(axis=1).mean())

    (right, sure), (right_smoothed, sure_smoothed) = fitted(0.0), fitted(0.4)
    assert min(right, right_smoothed) > 0.9
    assert sure > 0.85 and sure_smoothed == pytest.approx(0.6 + 0.4 / len(TAXONOMY), abs=0.08)


def test_later_fits_follow_the_plain_student_as_far_as_labels_are_soft(tiny_student: Path) -> None:
    names = list(TOPICS)
    rows = sentences(40, 0)
    wrong = [Example(row.text, names[(names.index(row.label) + 1) % len(names)]) for row in rows]

    def right_in_the_end(share: float) -> float:
        flags = {"student.learning_rate": 3e-3, "student.max_epochs": 15, "student.soft_labels": share}
        student = TorchStudent(tiny_config(tiny_student, **flags).student, TAXONOMY, seed=1)
        student.fit(rows, VALIDATION, 0)
        assert accuracy(student, VALIDATION) > 0.9
        student.fit(wrong, VALIDATION, 1)
        return accuracy(student, VALIDATION)

    assert right_in_the_end(0.0) < 0.5 and right_in_the_end(0.95) > 0.8


def test_soft_labels_are_the_labels_and_what_the_plain_student_predicted(tiny_student: Path) -> None:
    settings = tiny_config(tiny_student, **{"student.soft_labels": 0.25, "student.max_epochs": 2}).student
    student = TorchStudent(settings, TAXONOMY, seed=1)
    assert student._softened(TRAIN) is None  # the plain student takes labels as they are
    student.fit(TRAIN, VALIDATION, 0)
    said = student.predict([row.text for row in VALIDATION])
    student.fit(TRAIN[:8], VALIDATION, 1)
    before = student.predict(TEXTS)
    gold = np.eye(len(TAXONOMY))[[list(TOPICS).index(row.label) for row in VALIDATION]]
    assert student._softened(VALIDATION) == pytest.approx(0.75 * gold + 0.25 * said, abs=1e-4)
    assert np.array_equal(student.predict(TEXTS), before)
    snapshot = student.snapshot()
    student.reset()
    assert student._softened(VALIDATION) is None
    student.restore(snapshot)
    assert student._softened(VALIDATION) == pytest.approx(0.75 * gold + 0.25 * said, abs=1e-4)


@pytest.mark.parametrize("restart", ["continue", "from_scratch"])
@pytest.mark.parametrize("rates", [(1e-2,), (1e-3, 3e-3)])
def test_to_ask_the_plain_student_changes_no_fit(tiny_student: Path, restart: str, rates: tuple[float, ...]) -> None:
    flags = {"student.restart": restart, "student.learning_rate": list(rates), "student.max_epochs": 2}
    settings = tiny_config(tiny_student, **flags).student

    def second_fit(asked: list[Example] | None) -> dict[str, torch.Tensor]:
        student = TorchStudent(settings, TAXONOMY, seed=1)
        student.fit(TRAIN, VALIDATION, 0)
        plain = student.predict(TEXTS)
        if asked:
            student._softened(asked)
        assert np.array_equal(student.predict(TEXTS), plain)
        student.fit(TRAIN, VALIDATION, 1)
        return student.snapshot().weights

    never, before = second_fit(None), second_fit(TRAIN)
    assert all(torch.equal(never[key], before[key]) for key in never)


def test_soft_labels_are_smoothed_and_weighted_as_others_are() -> None:
    torch.manual_seed(0)
    logits, soft, weights = torch.randn(3, 4), torch.randn(3, 4).softmax(dim=1), [1.0, 0.5, 2.0]
    expected = -((0.8 * soft + 0.2 / 4) * logits.log_softmax(dim=1)).sum(dim=1) @ torch.tensor(weights)
    assert trainer._loss(logits, soft, weights, label_smoothing=0.2) == pytest.approx(float(expected), abs=1e-5)


def test_learns_and_reports_dynamics(tiny_student: Path) -> None:
    student = TorchStudent(
        tiny_config(tiny_student, **{"student.learning_rate": 3e-3, "student.max_epochs": 15}).student, TAXONOMY, seed=1
    )
    train = sentences(40, 0)
    result = student.fit(train, VALIDATION, kd_step=0)
    assert accuracy(student, VALIDATION) > 0.9
    assert result.dynamics.shape == (len(train), len(TAXONOMY))
    np.testing.assert_allclose(result.dynamics.sum(axis=1), 1, atol=1e-4)
    # A mean over epochs remembers the early ones: less sure than the model is in the end.
    gold = [list(TOPICS).index(row.label) for row in train]
    final = student.predict([row.text for row in train])
    rows = np.arange(len(train))
    assert result.dynamics[rows, gold].mean() < final[rows, gold].mean()


def test_the_first_fit_chooses_the_rate_with_the_lowest_validation_loss(tiny_student: Path) -> None:
    def fitted(**flags: object) -> tuple[float, float]:
        student = TorchStudent(
            tiny_config(tiny_student, **{"student.max_epochs": 4, **flags}).student, TAXONOMY, seed=1
        )
        first = student.fit(TRAIN, VALIDATION, 0)
        assert student.fit(TRAIN, VALIDATION, 1).learning_rate == first.learning_rate == student.learning_rate
        return first.learning_rate, first.validation_loss

    rates = (1e-6, 3e-3)
    alone = {rate: fitted(**{"student.learning_rate": rate})[1] for rate in rates}
    assert alone[3e-3] < alone[1e-6]  # else there is nothing to choose
    assert fitted(**{"student.learning_rate": rates}) == (3e-3, alone[3e-3])
    assert fitted(**{"student.learning_rate": rates[::-1]}) == (3e-3, alone[3e-3])


def test_a_rate_that_diverges_is_not_chosen_and_all_of_them_are_an_error(tiny_student: Path) -> None:
    def fit(rates: tuple[float, ...]) -> float:
        config = tiny_config(tiny_student, **{"student.learning_rate": rates, "student.bf16": "off"})
        return TorchStudent(config.student, TAXONOMY, seed=1).fit(TRAIN, VALIDATION, 0).learning_rate

    assert fit((1e30, 1e-3)) == 1e-3
    with pytest.raises(StudentDivergedError, match=r"1e\+30, 1e\+31"):
        fit((1e30, 1e31))


def test_a_fit_ends_with_the_weights_of_the_lowest_validation_loss(tiny_student: Path) -> None:
    losses: list[float] = []
    wild = tiny_config(tiny_student, **{"student.learning_rate": 0.03, "student.max_epochs": 8}).student
    student = TorchStudent(wild, TAXONOMY, seed=3, on_epoch=lambda _e, _m, loss: losses.append(loss))
    result = student.fit(sentences(6, 5), VALIDATION, kd_step=0)
    assert result.best_epoch == int(np.argmin(losses)) + 1
    probabilities = student.predict([row.text for row in VALIDATION])
    gold = [list(TOPICS).index(row.label) for row in VALIDATION]
    loss = -np.log(probabilities[np.arange(len(gold)), gold]).mean()
    assert loss == pytest.approx(min(losses), abs=1e-5)


def test_a_snapshot_is_untouched_by_later_fits_and_restores_every_tensor(student: TorchStudent) -> None:
    student.fit(TRAIN, VALIDATION, kd_step=0)
    snapshot = student.snapshot()
    before = {key: value.clone() for key, value in snapshot.weights.items()}
    student.fit(sentences(20, 9), VALIDATION, kd_step=1)
    assert any(not torch.equal(before[key], value) for key, value in student.snapshot().weights.items())
    student.restore(snapshot)
    restored = student.snapshot().weights
    assert restored.keys() == before.keys()
    assert all(torch.equal(before[key], restored[key]) for key in before)


def test_the_same_seed_gives_the_same_weights_and_another_step_others(config: PGKDConfig) -> None:
    def weights(kd_step: int) -> dict[str, torch.Tensor]:
        student = TorchStudent(config.student, TAXONOMY, seed=1)
        student.fit(TRAIN, VALIDATION, kd_step)
        return student.snapshot().weights

    first, again, other = weights(0), weights(0), weights(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_restart_policy(tiny_student: Path) -> None:
    short = {"student.max_epochs": 2, "student.soft_labels": 0}

    def second_fit(restart: str) -> dict[str, torch.Tensor]:
        settings = tiny_config(tiny_student, **{"student.restart": restart, **short}).student
        student = TorchStudent(settings, TAXONOMY, seed=1)
        student.fit(sentences(10, 7), VALIDATION, kd_step=0)
        student.fit(TRAIN, VALIDATION, kd_step=1)
        return student.snapshot().weights

    def only_second(settings: StudentSettings) -> dict[str, torch.Tensor]:
        student = TorchStudent(settings, TAXONOMY, seed=1)
        student.fit(TRAIN, VALIDATION, kd_step=1)
        return student.snapshot().weights

    fresh = only_second(tiny_config(tiny_student, **short).student)
    assert all(torch.equal(fresh[key], value) for key, value in second_fit("from_scratch").items())
    assert any(not torch.equal(fresh[key], value) for key, value in second_fit("continue").items())


def test_plain_transformers_gives_the_same_labels_and_probabilities(student: TorchStudent, tmp_path: Path) -> None:
    from transformers import pipeline

    student.fit(TRAIN, VALIDATION, kd_step=0)
    student.save(tmp_path / "model")
    ours = StudentClassifier.load(tmp_path / "model", device="cpu").batch(TEXTS)
    plain = pipeline("text-classification", model=str(tmp_path / "model"), device=-1)(TEXTS, truncation=True)
    assert [item["label"] for item in plain] == [item.label for item in ours]
    np.testing.assert_allclose([item["score"] for item in plain], [item.confidence for item in ours], atol=1e-5)
    direct = student.predict(TEXTS)
    np.testing.assert_allclose(direct, [list(item.probabilities.values()) for item in ours], atol=1e-5)
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"model.safetensors", "config.json"}


def test_batches_of_any_size_predict_the_same(student: TorchStudent) -> None:
    encoded = encode(student._tokenizer, TEXTS, 64)
    one = predict_logits(student._model, student._tokenizer, encoded, batch_size=1)
    many = predict_logits(student._model, student._tokenizer, encoded, batch_size=7)
    torch.testing.assert_close(one, many, atol=1e-4, rtol=1e-4)


def test_training_batches_take_each_row_once_and_pad_less_than_random_ones() -> None:
    encoded = [[0] * (1 + i % 50) for i in range(1000)]
    batches = training_batches(encoded, 16, seed=3)
    assert sorted(row for batch in batches for row in batch) == list(range(1000))
    padded = sum(max(len(encoded[row]) for row in batch) * len(batch) for batch in batches)
    assert padded < 1.15 * sum(map(len, encoded))
    assert batches != training_batches(encoded, 16, seed=4)


def test_a_runnable_takes_one_text_or_many(student: TorchStudent) -> None:
    classifier = student.classifier()
    one = classifier.invoke("apple and banana")
    assert classifier.batch(["apple and banana"])[0].label == one.label
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert classifier.batch([]) == []


def test_a_rate_far_too_high_is_a_divergence(tiny_student: Path) -> None:
    settings = tiny_config(tiny_student, **{"student.learning_rate": 1e30}).student
    with pytest.raises(StudentDivergedError, match="lower learning rate"):
        TorchStudent(settings, TAXONOMY, seed=1).fit(TRAIN, VALIDATION, kd_step=0)


def test_a_failed_save_keeps_the_old_model(
    student: TorchStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student.save(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()

    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(student._tokenizer), "save_pretrained", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        student.save(tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minilm", "pgkd models get minilm"),
        ("./nowhere", "no such folder"),
        ("nobody/no-such-model", "neither a usable local folder"),
    ],
)
def test_unknown_students(name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGKD_HOME", str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=message):
        TorchStudent(StudentSettings(name=name), TAXONOMY, seed=1)


def test_device_and_precision_choices() -> None:
    with pytest.raises(ConfigError, match="not usable here"):
        choose_device("cuda:99")
    assert use_bf16("on", torch.device("cpu")) and not use_bf16("off", torch.device("cpu"))


def test_a_small_encoder_gets_its_own_recipe(tiny_student: Path) -> None:
    own = recipe_for(StudentSettings(name=str(tiny_student)))
    assert (own.learning_rates, own.train_batch_size, own.label_smoothing, own.soft_labels) == ((1.5e-4,), 32, 0.1, 0.5)
    assert recipe_for(StudentSettings(name=str(tiny_student), learning_rate=2e-5)).learning_rates == (2e-5,)


def other_classifier(folder: Path, tiny_student: Path, names: list[str]) -> Path:
    """The tiny student saved as a classifier of these labels, its head all ones."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_student, num_labels=len(names), id2label=dict(enumerate(names)), ignore_mismatched_sizes=True
    )
    torch.nn.init.ones_(model.classifier.weight)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_student).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (list(TOPICS), True),
        (["w", "x", "y", "z"], False),
        (list(reversed(TOPICS)), False),
        (["one", "two", "three"], False),
    ],
)
def test_only_a_head_of_the_same_labels_is_kept(
    tiny_student: Path, tmp_path: Path, names: list[str], kept: bool
) -> None:
    folder = other_classifier(tmp_path / "other", tiny_student, names)
    config = tiny_config(folder).student
    weights, again, base = (
        TorchStudent(settings, TAXONOMY, seed=1).snapshot().weights
        for settings in (config, config, tiny_config(tiny_student).student)
    )
    head = weights["classifier.weight"]
    assert head.shape == (4, 32) and bool((head == 1).all()) == kept
    assert torch.equal(head, again["classifier.weight"])
    for name, tensor in weights.items():
        if name.startswith("bert."):
            assert torch.equal(tensor, base[name]), name  # the encoder is that of the file
    labels = TorchStudent(config, TAXONOMY, seed=1).classifier().labels
    assert labels == tuple(TOPICS)


def test_batches_have_few_lengths_and_none_beyond_what_the_student_takes(tiny_student: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_student))
    cpu = torch.device("cpu")
    lengths = {pad(tokenizer, [[1] * n, [1]], cpu)["input_ids"].shape[1] for n in range(1, 61)}
    assert lengths == set(range(4, 61, 4))
    assert pad(tokenizer, [[1] * 65], cpu)["input_ids"].shape[1] == 72
    tokenizer.model_max_length = 61
    batch = pad(tokenizer, [[1] * 61, [1] * 3], cpu)
    assert batch["input_ids"].shape == (2, 61)
    assert batch["attention_mask"].sum(dim=1).tolist() == [61, 3]
