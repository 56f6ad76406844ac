"""The teacher that labels a pool, over a student and an annotator that are tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pgkd_agent.data import Task
from pgkd_agent.errors import BudgetExceededError
from pgkd_agent.loop.trust import GoldCheck, Word
from pgkd_agent.teacher.annotation import Answer, Doubt
from pgkd_agent.teacher.labelling import LabellingTeacher, Pool, WritingAndLabelling
from pgkd_agent.types import Example, GeneratedSample, Label, Probabilities, TeacherReply, TeacherRequest
from tests.unit.builders import request_of

NAMES = ("red", "green", "blue")
TRAIN = tuple(Example(f"{name} {number}", name) for number in range(6) for name in NAMES)
TASK = Task(TRAIN, TRAIN[:3], (), tuple(map(Label, NAMES)))
POOL = tuple(f"{name} pool {number}" for number in range(4) for name in NAMES)


def gold(text: str) -> int:
    return NAMES.index(text.split()[0])


def embed(texts: Sequence[str]) -> np.ndarray:
    """All in one corner: no row is of help with another, and no two are the same."""
    vectors = [np.random.default_rng(sum(text.encode())).normal(size=8) for text in texts]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


def predict(texts: Sequence[str]) -> Probabilities:
    """Unsure of every text, of later ones more."""
    rows = []
    for text in texts:
        row = np.full(3, 0.3)
        row[gold(text)] = 0.4 - int(text.split()[-1]) / 100
        rows.append(row / row.sum())
    return np.stack(rows)


class Annotator:
    model_id = "table"

    def __init__(self, answer: Callable[[Doubt], Answer], room: int = 1000) -> None:
        self._answer = answer
        self._room = room
        self.asked: list[Doubt] = []

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        for number, doubt in enumerate(doubts):
            if len(self.asked) == self._room:
                raise BudgetExceededError("no room")
            self.asked.append(doubt)
            yield number, self._answer(doubt)


def right(doubt: Doubt) -> Answer:
    return Answer(Word(gold(doubt.text), doubt.candidates))


def ignorant(doubt: Doubt) -> Answer:
    return Answer(Word(0, doubt.candidates))


def request(num_labels: int, kd_step: int = 1) -> TeacherRequest:
    return replace(request_of(TASK, kd_step), num_labels=num_labels)


def teacher(annotator: Annotator, checks: list[GoldCheck] | None = None) -> LabellingTeacher:
    pool = Pool(POOL, predict, embed, NAMES)
    return LabellingTeacher(
        annotator, pool, TRAIN, TASK.taxonomy, seed=1, on_gold=None if checks is None else checks.append
    )


def test_the_texts_that_the_student_is_least_sure_of_are_labelled_once() -> None:
    labeller = teacher(Annotator(right))
    first, second = labeller.write(request(3)), labeller.write(request(6, kd_step=2))
    assert {sample.text for sample in first.samples} == {f"{name} pool 3" for name in NAMES}
    assert len(second.samples) == 6 and not {s.text for s in first.samples} & {s.text for s in second.samples}
    assert all(sample.source == "labelled" and sample.label == sample.text.split()[0] for sample in first.samples)
    last = labeller.write(request(99, kd_step=3))
    assert len(last.samples) == last.num_labels == 3, "the rest of the pool"


def test_a_label_carries_what_student_and_teacher_think_together() -> None:
    (sample,) = teacher(Annotator(right)).write(request(1)).samples
    shares = dict(sample.shares)
    assert next(iter(shares)) == sample.label and sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert 0.5 < shares[sample.label] < 1


def test_gold_rows_are_hidden_from_their_own_prompts_and_known_labels_come_with_each_text() -> None:
    annotator, checks = Annotator(right), []  # type: ignore[var-annotated]
    teacher(annotator, checks).write(request(2))
    assert checks[0].accuracy("teacher") == 1 and checks[0].is_of_use and len(checks[0].rows) == len(TRAIN)
    assert 0.9 < checks[0].trust.accuracy < 1
    for doubt in annotator.asked:
        assert doubt.text not in {row.text for row in doubt.rows}
        assert {row.label for row in doubt.rows} == {NAMES[candidate] for candidate in doubt.candidates}


def test_a_teacher_that_knows_less_than_the_rows_is_asked_for_no_label() -> None:
    annotator, checks = Annotator(ignorant), []  # type: ignore[var-annotated]
    labeller = teacher(annotator, checks)
    reply = labeller.write(request(3))
    assert reply.samples == () and reply.num_requests == len(TRAIN), "the check is counted"
    assert reply.num_labels == 0, "no text was asked about"
    assert "would not help" in str(checks[0])
    assert labeller.write(request(3, kd_step=2)).num_requests == 0, "and made once"


def test_what_was_answered_before_a_cap_is_kept() -> None:
    reply = teacher(Annotator(right, room=len(TRAIN) + 2)).write(request(5))
    assert len(reply.samples) == 2 and reply.stopped_by == "no room" and reply.num_requests == len(TRAIN) + 2
    early = teacher(Annotator(right, room=3)).write(request(5))
    assert early.samples == () and early.stopped_by == "no room" and early.num_requests == 3


def test_texts_of_no_candidate_and_unreadable_answers_become_no_rows() -> None:
    def answer(doubt: Doubt) -> Answer:
        if "pool" not in doubt.text:
            return right(doubt)
        return Answer(None) if doubt.text.startswith("red") else Answer(None, is_readable=False)

    reply = teacher(Annotator(answer)).write(request(3))
    assert reply.samples == () and reply.num_malformed == 2


def test_writing_and_labelling_make_one_step() -> None:
    class Writer:
        def __init__(self, stopped_by: str) -> None:
            self._stopped_by = stopped_by

        def write(self, request: TeacherRequest) -> TeacherReply:
            return TeacherReply((GeneratedSample("red as a rose", "red"),), stopped_by=self._stopped_by)

    both = WritingAndLabelling(Writer(""), teacher(Annotator(right))).write(request(2))
    assert [sample.source for sample in both.samples] == ["written", "labelled", "labelled"]
    assert both.num_requests == 1 + len(TRAIN) + 2
    annotator = Annotator(right)
    capped = WritingAndLabelling(Writer("no room"), teacher(annotator)).write(request(2))
    assert len(capped.samples) == 1 and not annotator.asked
