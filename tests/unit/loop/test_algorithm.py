"""Algorithm 1 over stand-ins for student and teacher: no torch, no language model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from pgkd_agent.config import GuardrailSettings, build_config
from pgkd_agent.data import Task
from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.algorithm import PGKDResult, run_pgkd
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.protocols import Asked
from pgkd_agent.runs.observer import Observer, Observers
from pgkd_agent.types import (
    Example,
    FitResult,
    GeneratedSample,
    Label,
    Probabilities,
    StepRecord,
    TeacherReply,
    TeacherRequest,
)

TAXONOMY = (Label("a"), Label("b"))
TASK = Task(
    train=tuple(Example(f"train text number {n}", "ab"[n % 2]) for n in range(6)),
    validation=(Example("secret validation one", "a"), Example("secret validation two", "b")),
    test=(Example("secret test", "a"),),
    taxonomy=TAXONOMY,
)


class FakeStudent:
    """After fit number n, predicts so that the validation loss is `losses[n]`; its weights are that number."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses = losses
        self.weights = -1
        self.fits: list[tuple[int, int]] = []
        self.predicted: list[list[str]] = []

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        self.weights += 1
        self.fits.append((kd_step, len(rows)))
        return FitResult(1, 1, np.full((len(rows), 2), 0.5))

    def predict(self, texts: Sequence[str]) -> Probabilities:
        self.predicted.append(list(texts))
        gold = {row.text: row.label for row in (*TASK.train, *TASK.validation)}
        p = math.exp(-self.losses[self.weights]) if math.isfinite(self.losses[self.weights]) else math.nan
        return np.array([[p, 1 - p] if gold.get(text, "a") == "a" else [1 - p, p] for text in texts])

    def snapshot(self) -> int:
        return self.weights

    def restore(self, snapshot: int) -> None:
        self.weights = snapshot


class FakeTeacher:
    """Writes one new sample a step, none in the steps of `silent`."""

    def __init__(self, silent: Sequence[int] = ()) -> None:
        self.silent = silent
        self.requests: list[TeacherRequest] = []

    def write(self, request: TeacherRequest) -> TeacherReply:
        self.requests.append(request)
        text = "" if request.kd_step in self.silent else f"{'xyzuvw'[request.kd_step % 6] * 20} {request.kd_step}"
        return TeacherReply((GeneratedSample(text, "a"),))


def run(
    losses: Sequence[float], silent: Sequence[int] = (), patience: int = 5, **flags: object
) -> tuple[PGKDResult, FakeStudent, FakeTeacher]:
    student, teacher = FakeStudent(losses), FakeTeacher(silent)
    steps = {
        "pgkd.num_kd_steps": len(losses) - 1, "pgkd.patience_limit": patience, "student.best_by": "loss", **flags,
    }  # fmt: skip
    result = run_pgkd(TASK, student, teacher, Guardrails(GuardrailSettings(), TAXONOMY), build_config(flags=steps))
    return result, student, teacher


def test_the_lowest_loss_is_restored_after_worse_steps() -> None:
    result, student, _ = run([0.9, 0.5, 0.3, 0.7, 0.8])
    assert result.best_step == student.weights == 2
    assert [step.is_best for step in result.steps] == [True, True, True, False, False]
    assert [round(step.validation.loss, 6) for step in result.steps] == [0.9, 0.5, 0.3, 0.7, 0.8]


def test_how_sure_of_itself_a_model_is_does_not_choose_it_unless_one_says_so() -> None:
    class Unsure(FakeStudent):
        """Of 40 validation rows the first model errs in four and is sure, the second in none and is in doubt."""

        def predict(self, texts: Sequence[str]) -> Probabilities:
            right = [0.95, 0.65][self.weights]
            gold = np.array(["ab".index(text[0]) if text[0] in "ab" else 0 for text in texts])
            is_wrong = np.isin(np.arange(len(texts)) % 20, (0, 11)) & (self.weights == 0)
            shares = np.full((len(texts), 2), 1 - right)
            shares[np.arange(len(texts)), np.where(is_wrong, 1 - gold, gold)] = right
            return shares

    rows = tuple(Example(f"{'ab'[n % 2]} secret number {n}", "ab"[n % 2]) for n in range(40))
    task = Task(TASK.train, rows, (), TAXONOMY)
    best = {}
    for by in ("loss", "calibrated_loss"):
        config = build_config(flags={"pgkd.num_kd_steps": 1, "student.best_by": by})
        screener = Guardrails(GuardrailSettings(), TAXONOMY)
        result = run_pgkd(task, Unsure([0, 0]), FakeTeacher(), screener, config)
        best[by] = result.best_step
        loss_of_best = result.steps[result.best_step].validation.loss
        assert loss_of_best == pytest.approx(result.row_losses[result.best_step].mean())
    assert best == {"loss": 0, "calibrated_loss": 1}


def test_the_plain_student_wins_where_no_step_is_better() -> None:
    result, student, _ = run([0.4, 0.4, 0.5])
    assert result.best_step == student.weights == 0


@pytest.mark.parametrize(("patience", "steps"), [(0, 3), (1, 6), (5, 8)])
def test_stops_when_the_counter_exceeds_the_limit_and_starts_again_at_an_improvement(patience: int, steps: int) -> None:
    losses = [0.9, 0.8, 0.85, 0.7, 0.71, 0.72, 0.73, 0.74]
    result, _, teacher = run(losses, patience=patience)
    assert len(result.steps) == steps and len(teacher.requests) == steps - 1
    assert result.stopped_early == (steps < len(losses))


def test_the_history_grows_by_what_was_accepted_and_every_fit_sees_all_of_it() -> None:
    result, student, _ = run([0.9, 0.8, 0.7], **{"student.balance": 0})
    assert student.fits == [(0, 6), (1, 7), (2, 8)]
    assert [row.kd_step for row in result.history.rows] == [0] * 6 + [1, 2]


def test_a_step_without_an_accepted_sample_fits_nothing_and_counts_as_no_improvement() -> None:
    result, student, _ = run([0.9, 0.5, 0.4], silent=[1, 2], patience=1)
    assert student.fits == [(0, 6)]
    assert result.stopped_early and len(result.steps) == 3
    assert result.steps[1].rejected == {"empty": 1} and result.steps[1].student_seconds == 0


@pytest.mark.parametrize(("source", "asks"), [("history", True), ("dynamics", False)])
def test_only_the_source_history_predicts_the_training_rows_again(source: str, asks: bool) -> None:
    _, student, _ = run([0.9, 0.8], **{"evidence.source": source})
    assert any("train text number 0" in texts for texts in student.predicted) == asks


def test_the_teacher_sees_the_current_report_and_no_held_out_text() -> None:
    result, _, teacher = run([0.9, 0.2, 0.8])
    for step, request in enumerate(teacher.requests):
        assert request.report == result.steps[step].validation.report
        assert "secret" not in repr(request)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(StudentDivergedError, match="step or epoch 1"):
        run([0.9, math.nan, 0.1])


def test_without_a_teacher_the_plain_student_is_all() -> None:
    student = FakeStudent([0.5])
    result = run_pgkd(TASK, student, None, Guardrails(GuardrailSettings(), TAXONOMY), build_config())
    assert result.best_step == 0 and len(result.steps) == 1 and not result.stopped_early


def test_an_observer_is_told_of_samples_and_then_of_the_model_trained_on_them() -> None:
    told: list[tuple[str, int, int]] = []

    class Notes(Observer):
        def on_samples(self, asked: Asked) -> None:
            told.append(("samples", asked.request.kd_step, student.weights))
            assert [row.kd_step for row in asked.screened.accepted] == [asked.request.kd_step]

        def on_step(self, record: StepRecord) -> None:
            told.append(("step", record.kd_step, student.weights))

    student = FakeStudent([0.9, 0.5, 0.7])
    config = build_config(flags={"pgkd.num_kd_steps": 2})
    run_pgkd(TASK, student, FakeTeacher(), Guardrails(GuardrailSettings(), TAXONOMY), config, Observers([Notes()]))
    assert told == [("step", 0, 0), ("samples", 1, 0), ("step", 1, 1), ("samples", 2, 1), ("step", 2, 2)]
