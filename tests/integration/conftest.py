"""A student small enough to train in a second, and rows it can learn."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.types import Example, Label

if TYPE_CHECKING:
    from pgkd_agent.student.classifier import StudentClassifier

TOPICS = {
    "fruit": ["apple", "banana", "cherry", "mango", "peach", "grape", "lemon", "plum"],
    "tools": ["hammer", "saw", "drill", "wrench", "pliers", "chisel", "screwdriver", "level"],
    "animals": ["dog", "cat", "horse", "rabbit", "cow", "sheep", "goat", "pig"],
    "weather": ["rain", "snow", "storm", "wind", "fog", "hail", "cloud", "thunder"],
}
FILLER = [
    "the",
    "a",
    "my",
    "old",
    "new",
    "big",
    "small",
    "near",
    "under",
    "over",
    "with",
    "and",
    "is",
    "was",
    "on",
    "in",
    "some",
    "very",
    "nice",
    "red",
    "blue",
]


def sentences(per_class: int, seed: int) -> list[Example]:
    generator = random.Random(seed)
    rows = []
    for label, words in TOPICS.items():
        for _ in range(per_class):
            text = generator.sample(FILLER, 4) + generator.sample(words, 2)
            generator.shuffle(text)
            rows.append(Example(" ".join(text), label))
    generator.shuffle(rows)
    return rows


def make_student(folder: Path) -> None:
    """A BERT with two layers of width 32 and a vocabulary of the words above."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = [*FILLER, *(word for topic in TOPICS.values() for word in topic)]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*letters, *(f"##{letter}" for letter in letters)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(p for p in pieces if p not in words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.05,
        attention_probs_dropout_prob=0.05,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-student")
    make_student(folder)
    return folder


@pytest.fixture(scope="session")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a student that was trained on the topics."""
    from pgkd_agent.student.student import TorchStudent

    student = TorchStudent(tiny_config(tiny_student).student, tuple(Label(name) for name in TOPICS), seed=1)
    student.fit(sentences(20, 0), sentences(5, 1), 0)
    folder = tmp_path_factory.mktemp("topics") / "model"
    student.save(folder)
    return folder


@pytest.fixture(scope="session")
def classifier(model: Path) -> StudentClassifier:
    from pgkd_agent.student.classifier import StudentClassifier

    return StudentClassifier.load(model)


@pytest.fixture
def config(tiny_student: Path) -> PGKDConfig:
    return tiny_config(tiny_student)


def tiny_config(student: Path, **flags: object) -> PGKDConfig:
    defaults = {
        "seed": 1,
        "student.name": str(student),
        "student.learning_rate": 5e-3,
        "student.train_batch_size": 16,
        "student.max_epochs": 8,
        "student.bf16": "off",  # the same numbers on every machine
        "pgkd.num_kd_steps": 2,
        "pgkd.pgkd_batch_size": 4,
        "teacher.prompt": "paper",
        "teacher.structured": "text",
    }
    return build_config(flags={**defaults, **flags})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "topics"
    folder.mkdir(parents=True)
    for name, per_class, seed in (("train", 20, 0), ("test", 5, 2)):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in sentences(per_class, seed)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "labels.json").write_text(json.dumps(list(TOPICS)), encoding="utf-8")
    return folder.parent
