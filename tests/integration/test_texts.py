"""What comes in place of a text, to a saved student, as a tool, and to a cascade."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from pgkd_agent.answering.cascade import Cascade
from pgkd_agent.errors import DataError
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, Label
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences, tiny_config

NO_TEXTS = [None, float("nan"), 3, b"a dog", ["a dog"], True]


def test_what_is_no_text_spoils_no_other(classifier: StudentClassifier) -> None:
    dog, cat = classifier.classify(["the old dog", "a cat"])
    cascade = Cascade(classifier, RunnableLambda(lambda text: "fruit"), 0.0)
    for none in NO_TEXTS:
        mixed: list[Any] = ["the old dog", none, "a cat"]
        for found in (
            classifier.batch(mixed, return_exceptions=True),
            asyncio.run(classifier.abatch(mixed, return_exceptions=True)),
            [getattr(each, "student", each) for each in cascade.batch(mixed, return_exceptions=True)],
        ):
            assert [each.label for each in (found[0], found[2])] == [dog.label, cat.label]
            assert isinstance(found[1], DataError) and type(none).__name__ in str(found[1])
        for call in (classifier.batch, classifier.classify, classifier.probabilities, cascade.batch, cascade.classify):
            with pytest.raises(DataError, match=r"text 2 of 3 is .*, expected a text"):
                call(mixed)
        for call in (classifier.invoke, cascade.invoke, lambda text: classifier.as_tool().invoke({"text": text})):
            with pytest.raises(DataError, match="expected a text"):
                call(none)
    with pytest.raises(DataError, match="a list of texts"):
        classifier.classify("the old dog")


def test_half_a_surrogate_pair_is_mended(classifier: StudentClassifier) -> None:
    asked: list[str] = []
    cascade = Cascade(classifier, RunnableLambda(lambda text: asked.append(text) or "fruit"), 1.0)
    broken, mended = "the old dog \ud83d", "the old dog \ufffd"
    expected = classifier.invoke(mended).probabilities
    assert classifier.invoke(broken).probabilities == classifier.batch([broken])[0].probabilities == expected
    assert cascade.invoke(broken).student.probabilities == expected and asked == [mended]
    assert classifier.as_tool().invoke({"text": broken}) == classifier.as_tool().invoke({"text": mended})


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_that_are_cut_are_counted(model: Path, tmp_path: Path, side: str) -> None:
    """The tiny student takes 64 tokens, two of them special ones."""
    folder = shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("checksums.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    changed = json.dumps({**settings, "truncation_side": side})
    (folder / "tokenizer_config.json").write_text(changed, encoding="utf-8")
    classifier = StudentClassifier.load(folder)
    lengths = [1, 61, 62, 63, 64, 500, 50_000]
    classifier.classify([" ".join(["dog"] * length) for length in lengths[:3]])
    assert classifier.note == ""
    classifier.classify([" ".join(["dog"] * length) for length in lengths[3:]])
    assert classifier.note == "texts longer than 64 tokens, cut there: 4 of 7"


def test_the_command_line_says_how_many_texts_are_cut(model: Path, tiny_student: Path) -> None:
    rows = [*sentences(3, 0), Example("dog " * 70, "animals"), Example("apple " * 62, "fruit")]
    Path("rows.jsonl").write_text("\n".join(json.dumps({"text": r.text, "label": r.label}) for r in rows))
    fit = ("--student", tiny_student, "--set", "student.max_epochs=1", "--out", "run")
    for command in (
        ("classify", model, "rows.jsonl"),
        ("-q", "evaluate", model, "rows.jsonl"),
        ("train", "--train", "rows.jsonl", *fit),
    ):
        ended = pgkd(*command)
        assert (ended.returncode, ended.stderr.count("texts longer than 64 tokens, cut there: 1 of 14")) == (0, 1)


def test_a_student_says_once_what_it_cuts(tiny_student: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny_config(tiny_student, **{"student.max_epochs": 1, "student.max_length": 8}).student
    student = TorchStudent(settings, tuple(Label(name) for name in TOPICS), seed=1)
    rows = [*sentences(2, 0), Example("my dog is " * 4, "animals")]
    for step in (0, 1):
        student.fit(rows, sentences(1, 1), step)
    student.predict(["my dog is " * 4])
    assert [record.getMessage() for record in caplog.records] == ["texts longer than 8 tokens, cut there: 1 of 13"]
