"""What comes in place of a text, to a saved student, as a tool, and to a cascade."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from pgkd_agent.answering.cascade import Cascade
from pgkd_agent.errors import DataError
from pgkd_agent.student.classifier import StudentClassifier

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
