"""`student.refit`: the validation rows choose a model, and are then trained on too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from pgkd_agent import Observer, StudentClassifier, distill
from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.errors import StudentDivergedError
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.training import rows_again
from pgkd_agent.pipeline import DistillResult, resume
from pgkd_agent.student.recipe import recipe_for
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.testing import ScriptedChatModel
from pgkd_agent.types import Label
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.test_distill import FIRST, SECOND
from tests.integration.test_head_start import encoder

TRAIN, VALIDATION, TEST = sentences(6, 0), sentences(4, 1), sentences(6, 2)
ALL = len(TRAIN) + len(VALIDATION)
TAXONOMY = tuple(map(Label, sorted(TOPICS)))  # as a task has them that is given none


def refitting(student: Path, **flags: Any) -> PGKDConfig:
    return tiny_config(student, **{"student.refit": True, **flags})


def alone(config: PGKDConfig, rows: Any, kd_step: int) -> Any:
    """What a student is that saw the plain student's fit, and then only these rows."""
    student = TorchStudent(config.student, TAXONOMY, config.seed)
    student.fit(list(History.of(TRAIN).rows), VALIDATION, 0)
    student.refit([*rows, *rows_again(rows, config.student.balance)], VALIDATION, kd_step)
    return student.predict(texts_of(TEST))


def run(config: PGKDConfig, out: Path | None = None) -> DistillResult:
    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        return distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=out)


def test_both_models_are_tested_after_a_fit_to_all_labelled_rows(tiny_student: Path, tmp_path: Path) -> None:
    config = refitting(tiny_student)
    result = run(config, tmp_path / "run")
    step = result.training.best_step
    assert step > 0, "for this test a step has to win"
    validation = History.of(VALIDATION).rows
    chosen = [row for row in result.training.history.rows if row.kd_step <= step]
    returned = alone(config, (*chosen, *validation), step)
    by_result = result.classifier.probabilities(texts_of(TEST))
    assert by_result.argmax(axis=1).tolist() == returned.argmax(axis=1).tolist()
    assert result.summary.last_fit and result.summary.last_fit.rows == len(chosen) + len(validation)
    assert result.summary.test
    for found, expected in (
        (result.summary.test.after, returned),
        (result.summary.test.before, alone(config, History.of([*TRAIN, *VALIDATION]).rows, 0)),
    ):
        right = [TAXONOMY[place].name == row.label for place, row in zip(expected.argmax(axis=1), TEST, strict=True)]
        assert found.report.accuracy == pytest.approx(sum(right) / len(TEST))


def test_what_is_saved_is_what_was_tested_and_a_lost_result_brings_it_back(tiny_student: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    config = refitting(tiny_student)
    first = run(config, path)
    weights = path / "models" / "best" / "model.safetensors"
    saved = {name: value.clone() for name, value in load_file(weights).items()}  # the file is written over below
    loaded = StudentClassifier.load(path / "models" / "best", device="cpu")
    found, expected = (one.probabilities(texts_of(TEST)) for one in (loaded, first.classifier))
    assert np.allclose(found, expected, atol=1e-6)
    (path / "result.json").unlink()  # killed in the last fit: the model is still that of the step
    weights.write_bytes((path / "models" / "last" / "model.safetensors").read_bytes())
    again = resume(path, ScriptedChatModel([]))  # nothing is asked again
    assert again.summary.test == first.summary.test
    assert all(load_file(weights)[name].equal(value) for name, value in saved.items())
    assert json.loads((path / "result.json").read_text())["last_fit"]["rows"] == first.summary.last_fit.rows  # type: ignore[union-attr]


def test_the_loop_itself_is_the_same_with_and_without(tiny_student: Path) -> None:
    with_it, without = run(refitting(tiny_student)), run(refitting(tiny_student, **{"student.refit": False}))
    assert with_it.training.history == without.training.history
    assert [one.validation for one in with_it.training.steps] == [one.validation for one in without.training.steps]
    assert with_it.summary.calibration.temperature == without.summary.calibration.temperature
    assert without.summary.last_fit is None and with_it.summary.test != without.summary.test


def test_a_plain_student_is_fitted_once_more_at_the_rate_that_won(tiny_student: Path) -> None:
    rates = (5e-3, 1e-5)  # the second one learns nothing
    config = refitting(tiny_student, **{"student.learning_rate": rates})
    result = distill(TRAIN, VALIDATION, TEST, config=config, steps=0)
    single = distill(TRAIN, VALIDATION, TEST, config=refitting(tiny_student), steps=0)
    assert result.summary.test and single.summary.test and single.summary.last_fit
    assert result.summary.test.after == result.summary.test.before == single.summary.test.after
    assert single.summary.last_fit.rows == ALL


def test_without_test_rows_only_the_returned_model_is_fitted_again(tiny_student: Path) -> None:
    phases: list[str] = []

    class Listening(Observer):
        def on_phase(self, kd_step: int, what: str) -> None:
            phases.append(what)

    with ScriptedChatModel([FIRST, SECOND]) as teacher:
        config = refitting(tiny_student)
        result = distill(TRAIN, VALIDATION, teacher=teacher, config=config, observer=Listening())
    assert result.training.best_step > 0 and result.summary.test is None and result.summary.last_fit
    assert ["plain" in phase for phase in phases if "once more" in phase] == [False]


def test_a_last_fit_that_fails_leaves_the_chosen_model(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(refitting(tiny_student, **{"student.refit": False}))

    def diverge(self: TorchStudent, *_: Any) -> None:
        self._begin_anew()
        raise StudentDivergedError("the training loss became nan")

    monkeypatch.setattr(TorchStudent, "refit", diverge)
    result = run(refitting(tiny_student))
    assert result.summary.last_fit is None and result.summary.test == expected.summary.test
    found, wanted = (one.classifier.probabilities(texts_of(TEST)) for one in (result, expected))
    assert np.allclose(found, wanted)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({}, True), ({"student.restart": "continue"}, False), ({"student.head_init": "random"}, False)],
)
def test_sentence_encoders_do_it_unless_their_fits_go_on_from_each_other(
    tiny_student: Path, tmp_path: Path, flags: dict[str, Any], expected: bool
) -> None:
    folder = encoder(tiny_student, tmp_path / "encoder")
    assert recipe_for(build_config(flags={"student.name": str(folder), **flags}).student).refit is expected
    assert recipe_for(build_config(flags={"student.name": str(folder), **flags, "student.refit": True}).student).refit


def test_the_papers_recipe_does_not() -> None:
    assert build_config(recipe="paper").student.refit is False
