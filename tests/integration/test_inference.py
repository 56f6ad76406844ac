"""A saved student at work: batches, precision, engines and the export to ONNX, on a small random BERT."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pgkd_agent.cli.export import export
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.student.batching import encode, inference_batches, pad
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.engines import export as exporting
from pgkd_agent.student.engines.export import ExportReport, export_classifier
from pgkd_agent.student.loading import load_tokenizer, use_bf16
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Label
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences, tiny_config

TEXTS = [row.text for row in sentences(30, 3)] + ["apple", "", "the old dog is near the big red hammer " * 20]


@pytest.fixture(scope="module")
def model(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for some epochs, so that labels are not a matter of the last digit."""
    config = tiny_config(tiny_student, **{"student.learning_rate": 3e-3, "student.max_epochs": 15}).student
    student = TorchStudent(config, tuple(Label(name) for name in TOPICS), seed=1)
    student.fit(sentences(40, 0), sentences(5, 1), kd_step=0)
    folder = tmp_path_factory.mktemp("run") / "models" / "best"
    student.save(folder)
    return folder


@pytest.fixture(scope="module")
def onnx(model: Path) -> Path:
    out = model.with_name("onnx")
    export_classifier(model, out, TEXTS, "the tests")
    return out


@pytest.fixture(scope="module")
def int8(model: Path) -> Path:
    out = model.with_name("int8")
    export_classifier(model, out, TEXTS, "the tests", "onnx-int8", min_agreement=0.9)
    return out


@pytest.fixture(scope="module")
def expected(model: Path) -> np.ndarray:
    probabilities = StudentClassifier.load(model, "cpu").probabilities(TEXTS)
    assert set(probabilities.argmax(axis=1)) == {0, 1, 2, 3}  # else agreement of labels would say little
    return probabilities


def test_batches_are_bounded_by_tokens_and_take_each_row_once() -> None:
    encoded = [[0] * (1 + number % 90) for number in range(500)]
    batches = list(inference_batches(encoded, batch_size=32, max_tokens=400))
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    sizes = [(len(batch), max(len(encoded[row]) for row in batch)) for batch in batches]
    assert all(rows <= 32 and rows * length <= 400 for rows, length in sizes)
    assert {rows for rows, _ in sizes} >= {4, 32}  # long texts few at a time, short ones up to the batch size
    assert list(inference_batches([[0] * 1000, [0]], 32, 400)) == [[0], [1]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_that_of_the_tokenizer(tiny_student: Path, side: str) -> None:
    tokenizer = load_tokenizer(str(tiny_student))
    tokenizer.padding_side = side
    rows = encode(tokenizer, ["apple", "the old dog is near the big red hammer"], 64)
    theirs = tokenizer.pad({"input_ids": rows}, padding="max_length", max_length=12, return_tensors="pt")
    ours = pad(tokenizer, rows, torch.device("cpu"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ("input_ids", "attention_mask"))


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_predictions_are_those_of_one_text_at_a_time(model: Path, batch_size: int) -> None:
    classifier = StudentClassifier.load(model, "cpu", batch_size)
    together = classifier.probabilities(TEXTS)
    alone = np.concatenate([classifier.probabilities([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert [item.label for item in classifier.batch(TEXTS)] == [classifier.invoke(text).label for text in TEXTS]


def test_a_model_is_loaded_under_either_name(model: Path, expected: np.ndarray) -> None:
    assert StudentClassifier.from_pretrained(str(model)).probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)


def test_bf16_moves_probabilities_a_little_and_fp32_is_the_default(model: Path, expected: np.ndarray) -> None:
    bf16 = [StudentClassifier.load(model, "cpu", size, precision="bf16").probabilities(TEXTS) for size in (1, 64)]
    assert 0 < np.abs(bf16[1] - expected).max() < 0.05
    np.testing.assert_allclose(bf16[0], bf16[1], atol=0.05)
    np.testing.assert_allclose(StudentClassifier.load(model, "cpu", precision="fp32").probabilities(TEXTS), expected)


def test_an_export_answers_as_the_original(onnx: Path, expected: np.ndarray) -> None:
    exported = StudentClassifier.load(onnx)
    assert exported.labels == tuple(TOPICS)
    np.testing.assert_allclose(exported.probabilities(TEXTS), expected, atol=1e-5)
    assert exported.invoke("apple and banana").label == exported.batch(["apple and banana"])[0].label
    assert exported.batch([]) == []
    assert {path.name for path in onnx.iterdir()} == {
        "model.onnx", "config.json", "export.json", "tokenizer.json", "tokenizer_config.json", "checksums.json",
    }  # fmt: skip
    report = ExportReport(**json.loads((onnx / "export.json").read_text()))
    assert report.label_agreement == 1 and report.max_probability_difference < 1e-5 and report.texts == len(TEXTS)


def test_int8_is_smaller_and_close(int8: Path, onnx: Path, expected: np.ndarray) -> None:
    found = StudentClassifier.load(int8).probabilities(TEXTS)
    assert (int8 / "model.onnx").stat().st_size < (onnx / "model.onnx").stat().st_size
    assert 0 < np.abs(found - expected).max() < 0.2
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9


@pytest.mark.parametrize("threads", [1, 3])
def test_no_text_of_an_export_depends_on_the_others(
    onnx: Path, int8: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _threads: None)  # it is for the whole process
    for folder in (onnx, int8):
        classifier = StudentClassifier.load(folder, threads=threads)
        done: list[int] = []
        together = classifier.probabilities(TEXTS, done.append)
        alone = np.concatenate([classifier.probabilities([text]) for text in TEXTS])
        np.testing.assert_allclose(together, alone, atol=1e-6)
        assert done == list(range(1, len(TEXTS) + 1))


def test_an_export_that_answers_otherwise_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_weights(classifier: torch.nn.Module, file: Path) -> None:
        with torch.no_grad():
            classifier.classifier.bias += torch.tensor([0.0, 0.0, 100.0, 0.0])
        export(classifier, file)

    export = exporting._export
    monkeypatch.setattr(exporting, "_export", other_weights)
    with pytest.raises(ConfigError, match=r"label of the original for \d+\.\d\d% of 123 texts .* at least 99\.50%"):
        export_classifier(model, tmp_path / "out", TEXTS, "the tests")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_an_export_that_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_model: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_export", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        export_classifier(model, tmp_path / "out", TEXTS, "the tests")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(
    model: Path, tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package} is missing; run `pip install 'pgkd-agent\[onnx\]'`"):
        export_classifier(model, tmp_path / "out", TEXTS, "the tests")


@pytest.mark.parametrize(("package", "engine", "extra"), [("onnxruntime", "auto", "onnx"), ("openvino",) * 3])
def test_an_export_without_its_engine(
    onnx: Path, package: str, engine: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package} is missing; run `pip install 'pgkd-agent\[{extra}\]'`"):
        StudentClassifier.load(onnx, engine=engine)


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 2), (5, 2), (64, 1)])
def test_openvino_answers_as_the_original(
    onnx: Path, expected: np.ndarray, batch_size: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _threads: None)  # it is for the whole process
    classifier = StudentClassifier.load(onnx, batch_size=batch_size, engine="openvino", threads=threads)
    assert classifier.labels == tuple(TOPICS)
    done: list[int] = []
    np.testing.assert_allclose(classifier.probabilities(TEXTS, done.append), expected, atol=1e-5)
    assert done == sorted(done) and done[-1] == len(TEXTS)
    np.testing.assert_allclose(classifier.probabilities(TEXTS[:1]), expected[:1], atol=1e-5)
    assert classifier.batch([]) == []


def test_openvino_in_bf16(onnx: Path, expected: np.ndarray) -> None:
    has_bf16 = use_bf16("auto", torch.device("cpu"))
    found = StudentClassifier.load(onnx, engine="openvino", precision="bf16").probabilities(TEXTS)
    assert 0 < np.abs(found - expected).max() < 0.05 or not has_bf16
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_openvino_reports_to_nobody(onnx: Path) -> None:
    """Its own telemetry would send what is imported; CI keeps it silent, so a process without that is asked."""
    script = (
        "import sys; from pgkd_agent import StudentClassifier\n"
        f"print(StudentClassifier.load({str(onnx)!r}, engine='openvino').invoke('apple').label)\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    label, loaded = done.stdout.splitlines()
    assert label in TOPICS and loaded == "[]"


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_model_of_another_tool_that_takes_more_is_refused(onnx: Path, tmp_path: Path, engine: str) -> None:
    import onnx as onnx_format

    for path in onnx.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    model = onnx_format.load(str(onnx / "model.onnx"))
    types = onnx_format.helper.make_tensor_value_info("token_type_ids", onnx_format.TensorProto.INT64, ["n", "m"])
    model.graph.input.append(types)
    onnx_format.save(model, str(tmp_path / "model.onnx"))
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(ConfigError, match=r"takes attention_mask, input_ids, token_type_ids, expected .*pgkd export"):
        StudentClassifier.load(tmp_path, engine=engine)


def test_a_damaged_report_of_an_export_is_named(onnx: Path, tmp_path: Path) -> None:
    for path in onnx.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "export.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"export\.json is damaged"):
        StudentClassifier.load(tmp_path, engine="openvino")


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_many_threads_may_ask_at_once(onnx: Path, expected: np.ndarray, engine: str) -> None:
    classifier = StudentClassifier.load(onnx, engine=engine)
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: classifier.probabilities([text])[0], TEXTS))
    np.testing.assert_allclose(np.array(rows), expected, atol=1e-5)


def test_a_tokenizer_without_a_longest_text_takes_that_of_the_model(model: Path, tmp_path: Path) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "checksums.json").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    long = "the old dog is near the big red hammer " * 20
    found = StudentClassifier.load(tmp_path, "cpu").probabilities([long])
    np.testing.assert_allclose(found, StudentClassifier.load(model, "cpu").probabilities([long]), atol=1e-5)


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        ("best", {"engine": "onnx"}, "pgkd export"),
        ("best", {"engine": "openvino"}, "pgkd export"),
        ("best", {"engine": "tf"}, "none of auto, torch, onnx, openvino"),
        ("best", {"precision": "fp8"}, "none of auto, fp32, bf16"),
        ("onnx", {"engine": "torch"}, "no weights for torch"),
        ("onnx", {"device": "cuda"}, "runs on the CPU"),
        ("onnx", {"device": "cuda", "engine": "openvino"}, "openvino engine runs on the CPU"),
        ("onnx", {"precision": "bf16"}, "torch and openvino"),
        ("int8", {"engine": "openvino"}, "onnx-int8 export, for `engine=onnx`"),
    ],
)
def test_choices_that_do_not_fit(onnx: Path, int8: Path, folder: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StudentClassifier.load(onnx.with_name(folder), **options)


def test_where_both_are_the_engine_can_be_named(model: Path, onnx: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for path in (*model.iterdir(), onnx / "model.onnx"):
        (both / path.name).write_bytes(path.read_bytes())
    (both / "model.onnx").write_bytes(b"damaged")
    assert StudentClassifier.load(both).invoke("apple").label in TOPICS
    for engine in ("onnx", "openvino"):
        with pytest.raises(ConfigError, match=r"model\.onnx cannot be run"):
            StudentClassifier.load(both, engine=engine)


def test_export_and_use_from_the_command_line(model: Path) -> None:
    file = model.parent.parent / "validation.jsonl"
    rows = sentences(5, 1)
    file.write_text("\n".join(json.dumps({"text": row.text, "label": row.label}) for row in rows), encoding="utf-8")
    done = pgkd("export", model)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "checked on 20 texts" in done.stdout and "100.00%" in done.stdout
    exported = model.with_name("best-onnx")
    classified = [json.loads(line) for line in pgkd("classify", exported, file, "--threads", "1").stdout.splitlines()]
    expected = StudentClassifier.load(model, "cpu").batch([row.text for row in rows])
    assert [row["label"] for row in classified] == [item.label for item in expected]
    report = json.loads(pgkd("evaluate", exported, file, "--json").stdout)["report"]
    right = [item.label == row.label for item, row in zip(expected, rows, strict=True)]
    assert report["accuracy"] == pytest.approx(np.mean(right))


def test_where_an_export_goes_and_what_it_is_checked_on(model: Path, onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        export_classifier(model, onnx, TEXTS, "the tests")
    lone = shutil.copytree(model, tmp_path / "models" / "best")
    with pytest.raises(ConfigError, match="--check FILE"):
        export(lone)
    with pytest.raises(ConfigError, match="nosuch: no such folder"):
        export(tmp_path / "nosuch")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ConfigError, match="no texts to check"):
        export(model, out=tmp_path / "out", check=tmp_path / "empty.txt")
    with pytest.raises(ConfigError, match="none of onnx, onnx-int8"):
        export_classifier(model, tmp_path / "out", TEXTS, "the tests", "tflite")
