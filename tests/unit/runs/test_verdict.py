"""What is said of a run's model, and what a loss alone does not say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pgkd_agent.metrics.intervals import GainSupport
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.runs.verdict import caution, verdict
from pgkd_agent.types import Evaluation, Example, Label, StepRecord
from tests.unit.builders import evaluation

TAXONOMY = (Label("often"), Label("rare"), Label("never"))
ROWS = [Example(str(number), "rare" if number < 5 else "often") for number in range(100)]


def steps(*losses: float, accepted: int = 3) -> list[StepRecord]:
    return [
        StepRecord(n, evaluation(loss), is_best=False, epochs=1, history_rows=9, accepted=accepted if n else 0)
        for n, loss in enumerate(losses)
    ]


def test_the_verdict_says_which_model_was_kept_and_why() -> None:
    assert verdict(steps(0.5), 0) == "the plain student, validation loss 0.5000"
    kept = verdict(steps(0.5, 0.4), 1)
    assert kept.startswith("kept the model of KD step 1: validation loss 0.4000, plain student 0.5000")
    sure, unsure = (GainSupport(0.1, low, 0.2, low > 0) for low in (0.05, -0.01))
    assert "(gain on rows that did not choose: +0.100, 95 % interval +0.050" in verdict(steps(0.5, 0.4), 1, sure)
    assert "(which may be luck: gain on rows that did not choose +0.100" in verdict(steps(0.5, 0.4), 1, unsure)
    kept = verdict(steps(0.5, 0.7, 0.6), 0)
    assert "model 0" in kept and "6 samples" in kept and "lowest 0.6000" in kept
    assert "not one sample" in verdict(steps(0.5, 0.5, accepted=0), 0)


def test_a_choice_that_the_test_rows_contradict_is_said_aloud() -> None:
    before, worse, better = evaluation(0.5), evaluation(0.6), evaluation(0.4)
    assert "worse: loss 0.6000, plain student 0.5000" in caution(worse, (before, worse))
    assert caution(better, (before, better)) == caution(before, (before, before)) == caution(before, None) == ""


def predicting(loss: float, *rare: int) -> Evaluation:
    """Of rows of which these are predicted as rare ones."""
    probabilities = np.tile([0.9, 0.1, 0.0], (len(ROWS), 1))
    probabilities[list(rare)] = [0.1, 0.9, 0.0]
    return replace(evaluate(probabilities, ROWS, TAXONOMY), loss=loss)


def trained(*models: Evaluation) -> list[StepRecord]:
    return [StepRecord(n, model, False, epochs=1, history_rows=9, accepted=n) for n, model in enumerate(models)]


def test_a_lower_loss_alone_is_called_that() -> None:
    sure = GainSupport(0.007, 0.006, 0.007, True)
    none, again, two, wrong = predicting(0.2), predicting(0.193), predicting(0.19, 0, 1), predicting(0.19, 9)
    same = verdict(trained(none, again), 1, sure)
    assert same.endswith("lower loss, same labels: on the validation rows accuracy stays 0.950, macro F1 0.487")
    on_test = verdict(trained(none, two), 1, sure, (none, wrong))
    assert on_test.endswith("no better labels: on the test rows accuracy 0.950 to 0.940, macro F1 0.487 to 0.485")
    assert "labels" not in verdict(trained(none, two), 1, sure)
    assert "labels" not in verdict(trained(none, again), 1, sure, (none, two))


def test_better_labels_at_a_higher_loss_are_told_too() -> None:
    none, two = predicting(0.2), predicting(0.3, 0, 1)
    kept = verdict(trained(none, two), 0)
    assert "labels alone were better in step 1: accuracy 0.950 to 0.970" in kept and "did not help" not in kept
    assert "labels alone are better" in caution(two, (none, two)) and "worse" not in caution(two, (none, two))


def test_a_model_that_knows_one_class_is_called_that() -> None:
    said = "100 test rows are predicted as 'often', also those of the other classes (5)"
    assert f"all {said}" in caution(predicting(0.2), (predicting(0.3), predicting(0.2)))
    assert "all 100 validation rows" in caution(predicting(0.2), None)
    nearly = predicting(0.2, 7, 8)
    assert "98 of 100 validation rows are predicted as 'often'" in caution(nearly, None)
    assert caution(predicting(0.2, 0), None) == ""  # 4 of 5 are not 90 %
    assert caution(replace(evaluate(np.array([[1.0, 0.0, 0.0]] * 3), ROWS[5:8], TAXONOMY)), None) == ""
