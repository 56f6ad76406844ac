"""Folders that are not what they seem: each is refused with a sentence, wherever a model is read."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from pgkd_agent.config import StudentSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.checksums import write_calibration
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.engines.choosing import choose_engine
from pgkd_agent.student.engines.export import export_classifier
from pgkd_agent.student.loading import load_tokenizer
from pgkd_agent.student.saving import save_classifier
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Label
from tests.integration.command_line import Ended, pgkd
from tests.integration.conftest import TOPICS

TAXONOMY = tuple(Label(name) for name in TOPICS)
Weights = dict[str, torch.Tensor]


def answer(folder: Path) -> object:
    return StudentClassifier.load(folder)


def export(folder: Path) -> object:
    return export_classifier(folder, folder.with_name("exported"), ["an apple"], "the tests")


def study(folder: Path) -> object:
    return TorchStudent(StudentSettings(name=str(folder)), TAXONOMY, seed=1)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """Of a trained classifier, to be spoilt: as of another tool, without checksums."""
    return shutil.copytree(model, tmp_path / "copy", ignore=shutil.ignore_patterns("checksums.json"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "calibration.json"])
def test_a_turned_bit_is_named_whatever_reads_the_folder(model: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    write_calibration(folder, '{"temperature": 1.25}')
    assert StudentClassifier.load(folder).temperature == 1.25
    content = bytearray((folder / name).read_bytes())
    content[-2 if name == "calibration.json" else len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    for read in (StudentClassifier.load, study):
        with pytest.raises(ConfigError, match=f"{name} is damaged: it is not what was saved"):
            read(folder)
    (folder / name).unlink()
    if name != "calibration.json":
        with pytest.raises(ConfigError, match=f"{name} is missing|no model folder"):
            StudentClassifier.load(folder)


def test_the_same_model_has_the_same_files_whatever_was_read_before(
    classifier: StudentClassifier, tmp_path: Path
) -> None:
    model, tokenizer = classifier._engine._model, classifier._tokenizer  # type: ignore[attr-defined]
    for number, truncation in enumerate((True, False)):
        tokenizer("an old dog", truncation=truncation, max_length=8, padding=truncation and "max_length")
        save_classifier(model, tokenizer, 64, tmp_path / str(number))
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "01"]
    assert files[0] == files[1]


def change_weights(folder: Path, change: Callable[[Weights], Weights]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {re.sub(old, new, name): tensor for name, tensor in weights.items()}


def with_rows(name: str, rows: int) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: torch.zeros(rows, 32)}


def said(*arguments: object) -> Ended:
    """On one line each: the terminal breaks them."""
    ended = pgkd(*arguments)
    return Ended(ended.returncode, ended.stdout, " ".join(ended.stderr.split()))


LAYER = "bert.encoder.layer.1.output.dense.weight"

# (what is wrong with the weights, what is said of it as a trained model, and as a student to train: None trains)
OTHER_WEIGHTS: list[tuple[Callable[[Weights], Weights], str, str | None]] = [
    (without("classifier"), "has no trained head: classifier.bias is missing, classifier.weight is missing; ", None),
    (with_rows("classifier.weight", 7), "head: classifier.weight is of shape (7, 32), expected (4, 32)", None),
    (without("pooler"), "holds other weights than its configuration says: bert.pooler.dense.bias is missing", None),
    (without(LAYER), f"its configuration says: {LAYER} is missing", f"its configuration says: {LAYER} is missing"),
    (without(".layer.1."), "and 13 more; get the whole folder anew", "and 13 more; get the whole folder anew"),
    (with_rows("bert.embeddings.word_embeddings.weight", 9), "is of shape (9, 32)", "is of shape (9, 32)"),
    (lambda weights: {**weights, "bert.encoder.layer.2.x": torch.zeros(1)}, "layer.2.x has no place in it", None),
    (renamed("^", "model."), "under other names: model.bert.", "under other names: model.bert."),
    (renamed("^", "module."), "under other names: module.bert.", "under other names: module.bert."),
    (renamed("^bert", "roberta"), "under other names: roberta.", "under other names: roberta."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "as_model", "as_student"), OTHER_WEIGHTS, ids=[row[1][-40:] for row in OTHER_WEIGHTS]
)
def test_weights_that_do_not_fit(
    copy: Path, change: Callable[[Weights], Weights], as_model: str, as_student: str | None
) -> None:
    change_weights(copy, change)
    for use, message in ((answer, as_model), (export, as_model), (study, as_student)):
        if message is None:
            use(copy)
            continue
        with pytest.raises(ConfigError) as error:
            use(copy)
        assert message in str(error.value) and str(copy) in str(error.value)


def test_an_encoder_does_not_answer(tiny_student: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_student, "encoder")
    AutoModel.from_pretrained(tiny_student).save_pretrained("encoder")
    Path("texts.txt").write_text("my dog\n", encoding="utf-8")
    Path("rows.jsonl").write_text('{"text": "my dog", "label": "LABEL_0"}\n', encoding="utf-8")
    for command in (["classify", "encoder", "texts.txt"], ["evaluate", "encoder", "rows.jsonl"], ["serve", "encoder"]):
        ended = said(*command)
        assert ended.returncode == 2 and not ended.stdout
        assert "the model in encoder has no trained head: classifier.bias is missing" in ended.stderr


# (settings of its config.json, what is said of it as a trained model)
OTHER_KINDS: list[tuple[dict[str, Any], str]] = [
    ({"problem_type": "multi_label_classification"}, "one label of several (multi_label_classification)"),
    ({"problem_type": "regression"}, "one label of several (regression)"),
    ({"function_to_apply": "sigmoid"}, "one label of several (sigmoid)"),
    ({"id2label": {"0": "score"}, "label2id": {"score": 0}, "problem_type": None}, "one label of several (1 output)"),
    ({"id2label": {str(n): "same" for n in range(4)}, "label2id": {}}, "expected another name for each"),
    ({"id2label": dict(zip("1234", TOPICS, strict=True))}, "expected another name for each, from 0 on"),
    ({"id2label": dict(zip("012", TOPICS, strict=False))}, "classifier.weight is of shape (4, 32), expected (3, 32)"),
    ({"id2label": dict(zip("0123", [None, "a", "b", "c"], strict=True))}, "id2label"),
    ({"id2label": dict(zip("abcd", TOPICS, strict=True))}, "invalid literal"),
    ({"auto_map": {"AutoModelForSequenceClassification": "code.Mine"}}, "brings code of its own (auto_map)"),
    ({"auto_map": {"AutoConfig": "code.Mine"}, "model_type": "mine"}, "brings code of its own (auto_map)"),
    ({"model_type": "nothing-known"}, "nothing-known"),
    ({"hidden_size": "wide"}, "hidden_size"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), OTHER_KINDS, ids=[row[1][-40:] for row in OTHER_KINDS])
def test_models_of_another_kind(copy: Path, settings: dict[str, Any], message: str) -> None:
    (copy / "code.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    change_config(copy, **settings)
    with pytest.raises(ConfigError) as error:
        StudentClassifier.load(copy)
    assert message in str(error.value)


def test_names_that_are_numbers_are_names(copy: Path) -> None:
    change_config(copy, id2label={str(n): n for n in range(4)})
    assert StudentClassifier.load(copy).labels == ("0", "1", "2", "3")


def test_weights_that_are_no_numbers_give_no_label(copy: Path) -> None:
    change_weights(copy, lambda weights: {**weights, "classifier.bias": torch.full((4,), float("nan"))})
    with pytest.raises(ConfigError, match="no finite numbers"):
        StudentClassifier.load(copy).invoke("my dog")


def test_a_model_of_another_kind_is_a_student_still(copy: Path, tmp_path: Path) -> None:
    change_config(copy, problem_type="multi_label_classification", function_to_apply="sigmoid")
    TorchStudent(StudentSettings(name=str(copy)), TAXONOMY, seed=1).save(tmp_path / "out")
    assert StudentClassifier.load(tmp_path / "out").labels == tuple(TOPICS)


def test_classes_without_names_are_spoken_of(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    change_config(copy, id2label={str(n): f"LABEL_{n}" for n in range(4)}, label2id={})
    StudentClassifier.load(copy)
    assert "does not name its classes: they are LABEL_0, LABEL_1" in caplog.text


def test_code_is_never_run_and_nobody_is_asked(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    (copy / "code.py").write_text("raise SystemExit('this code ran')", encoding="utf-8")
    file = copy / "tokenizer_config.json"
    settings = {**json.loads(file.read_text(encoding="utf-8")), "auto_map": {"AutoTokenizer": ["code.Mine", None]}}
    file.write_text(json.dumps({**settings, "tokenizer_class": "Mine"}), encoding="utf-8")
    for use in (answer, study):
        with pytest.raises(ConfigError, match="brings code of its own"):
            use(copy)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "page": lambda _: b"<!doctype html><title>not found</title>",
    "pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json"])
def test_damaged_files_are_named(copy: Path, name: str, damage: str) -> None:
    if name == "pytorch_model.bin":
        torch.save(load_file(copy / "model.safetensors"), copy / name)
        (copy / "model.safetensors").unlink()
        StudentClassifier.load(copy)
    (copy / name).write_bytes(DAMAGE[damage]((copy / name).read_bytes()))
    for use in (answer, study):
        with pytest.raises(ConfigError) as error:
            use(copy)
        assert str(copy / name) in str(error.value) and "weights_only" not in str(error.value)
    Path("texts.txt").write_text("my dog\n", encoding="utf-8")
    assert said("classify", copy, "texts.txt").returncode == 2


def test_a_damaged_part_of_the_weights_is_named(copy: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="20KB")
    parts = sorted(copy.glob("model-*.safetensors"))
    StudentClassifier.load(copy)
    parts[1].write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{parts[1]}: "):
        StudentClassifier.load(copy)
    parts[1].unlink()
    with pytest.raises(ConfigError, match=parts[1].name):
        StudentClassifier.load(copy)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def test_a_pickle_with_code_is_not_run(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"bert.pooler.dense.bias": Bomb()}, copy / "pytorch_model.bin")
    for use in (answer, study):
        with pytest.raises(ConfigError, match="something else than tensors, or is damaged"):
            use(copy)
    assert not Path("exploded").exists()


def test_a_run_directory_stands_for_its_best_model(model: Path, tmp_path: Path) -> None:
    best = shutil.copytree(model, tmp_path / "run" / "models" / "best")
    Path("texts.txt").write_text("my dog\n", encoding="utf-8")
    expected = StudentClassifier.load(best).probabilities(["my dog"])
    assert (StudentClassifier.load(tmp_path / "run").probabilities(["my dog"]) == expected).all()
    assert said("classify", "run", "texts.txt").stdout == said("classify", best, "texts.txt").stdout
    assert choose_engine(tmp_path / "run") == "torch"
    assert TorchStudent(StudentSettings(name="run"), TAXONOMY, seed=1).classifier().labels == tuple(TOPICS)


@pytest.mark.parametrize("name", ["/no/such/model", "./nosuch", "../nosuch", "runs/x/models/best", "~/nosuch"])
def test_a_path_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_tokenizer(name)
    with pytest.raises(ConfigError, match="no such folder"):
        StudentClassifier.load(name)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    Path("empty").mkdir()
    Path("rows.jsonl").write_text('{"text": "my dog", "label": "animals"}\n', encoding="utf-8")
    for command in (["classify", "nosuch", "rows.jsonl"], ["evaluate", "nosuch", "rows.jsonl"], ["export", "nosuch"]):
        assert "nosuch: no such folder" in said(*command).stderr
        assert (
            "minilm is to be trained before it answers"
            in said(*[word.replace("nosuch", "minilm") for word in command]).stderr
        )
        assert "empty is no model folder" in said(*[word.replace("nosuch", "empty") for word in command]).stderr
