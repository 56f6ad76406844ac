"""The four sources of evidence, told apart by a student that knows exactly what it was trained on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pgkd_agent.config import GuardrailSettings, PGKDConfig, build_config
from pgkd_agent.data import Task
from pgkd_agent.loop.algorithm import run_pgkd
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import History
from pgkd_agent.loop.scoring import score_history, stratified_folds
from pgkd_agent.types import (
    EvidenceItem,
    Example,
    FitResult,
    GeneratedSample,
    Label,
    Probabilities,
    TeacherReply,
    TeacherRequest,
)

TASK = Task(
    train=tuple(Example(f"{'red' if n % 2 else 'blue'} text {n}", "ab"[n % 2]) for n in range(12)),
    validation=(Example("red validation", "b"), Example("blue validation", "a")),
    test=(),
    taxonomy=(Label("a"), Label("b")),
)


def gold(text: str) -> int:
    return int("red" in text)


class Memorizer:
    """Right about what it was trained on since the last reset, wrong about all else; a fit does not forget."""

    def __init__(self) -> None:
        self.known: frozenset[str] = frozenset()
        self.fits: list[int] = []

    def reset(self) -> None:
        self.known = frozenset()

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        assert validation is TASK.validation
        self.known |= {row.text for row in rows}
        self.fits.append(len(rows))
        undecided = np.tile([0.4, 0.6], (len(rows), 1))  # over the epochs, everything looks like b
        return FitResult(1, 1, undecided)

    def predict(self, texts: Sequence[str]) -> Probabilities:
        right = [gold(text) if text in self.known else 1 - gold(text) for text in texts]
        return np.array([[0.9, 0.1] if label == 0 else [0.1, 0.9] for label in right])

    def snapshot(self) -> frozenset[str]:
        return self.known

    def restore(self, snapshot: frozenset[str]) -> None:
        self.known = snapshot


def score(source: str) -> tuple[list[EvidenceItem], Memorizer]:
    student = Memorizer()
    fit = student.fit(TASK.train, TASK.validation, 0)
    config = build_config(flags={"evidence.source": source})
    return score_history(student, History.of(TASK.train), fit, TASK, config, 1), student


def wrong(items: Sequence[EvidenceItem]) -> int:
    return sum(item.gold_label != item.predicted_label for item in items)


def test_the_history_shows_no_mistake_of_a_student_that_learned_it_by_heart() -> None:
    items, student = score("history")
    assert wrong(items) == 0 and student.fits == [12]


def test_dynamics_show_what_the_student_thought_on_the_way_for_no_further_fit() -> None:
    items, student = score("dynamics")
    assert {item.predicted_label for item in items} == {"b"} and student.fits == [12]


def test_out_of_fold_shows_rows_to_models_that_do_not_know_them_and_puts_the_student_back() -> None:
    items, student = score("out_of_fold")
    assert wrong(items) == len(items) == 12
    assert [item.text for item in items] == [row.text for row in TASK.train]
    assert student.fits == [12, 8, 8, 8]
    assert student.known == {row.text for row in TASK.train}


class Writer:
    """One sample a step, none in step 2."""

    def __init__(self) -> None:
        self.requests: list[TeacherRequest] = []

    def write(self, request: TeacherRequest) -> TeacherReply:
        self.requests.append(request)
        text = "" if request.kd_step == 2 else f"{'xyzuv'[request.kd_step] * 9} red {request.kd_step}"
        return TeacherReply((GeneratedSample(text, "b"),))


def run(config: PGKDConfig) -> tuple[list[TeacherRequest], Memorizer, Any]:
    student, teacher = Memorizer(), Writer()
    result = run_pgkd(TASK, student, teacher, Guardrails(GuardrailSettings(), TASK.taxonomy), config)
    return teacher.requests, student, result


@pytest.mark.parametrize(("source", "fits"), [("dynamics", 2), ("history", 2), ("out_of_fold", 2 + 3)])
def test_only_out_of_fold_costs_fits_and_all_its_time_is_counted(source: str, fits: int) -> None:
    config = build_config(flags={"evidence.source": source, "pgkd.num_kd_steps": 1})
    _, student, result = run(config)
    assert len(student.fits) == fits
    assert result.steps[0].evidence_seconds == 0 < result.steps[1].evidence_seconds


def test_folds_hold_each_row_once_and_spread_the_classes() -> None:
    rows = [Example(str(n), label) for n, label in enumerate("a" * 9 + "b" * 6 + "c")]
    folds = stratified_folds(rows, 3, random.Random(0))
    assert sorted(number for fold in folds for number in fold) == list(range(16))
    for fold in folds:
        counts = Counter(rows[number].label for number in fold)
        assert counts["a"] == 3 and counts["b"] == 2
