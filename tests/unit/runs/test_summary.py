from __future__ import annotations

from dataclasses import replace

from pgkd_agent.metrics.intervals import GainSupport
from pgkd_agent.runs.summary import caution, class_changes, verdict
from pgkd_agent.types import StepRecord
from tests.unit.builders import evaluation, report


def steps(*losses: float, accepted: int = 3) -> list[StepRecord]:
    return [
        StepRecord(n, evaluation(loss), is_best=False, epochs=1, history_rows=9, accepted=accepted if n else 0)
        for n, loss in enumerate(losses)
    ]


def test_the_verdict_says_which_model_was_kept_and_why() -> None:
    assert verdict(steps(0.5), 0) == "the plain student, validation loss 0.5000"
    assert verdict(steps(0.5, 0.4), 1) == "kept the model of KD step 1: validation loss 0.4000, plain student 0.5000"
    sure, unsure = (GainSupport(0.1, low, 0.2, low > 0) for low in (0.05, -0.01))
    assert "(gain on rows that did not choose: +0.100, 95 % interval +0.050" in verdict(steps(0.5, 0.4), 1, sure)
    assert "(which may be luck: gain on rows that did not choose +0.100" in verdict(steps(0.5, 0.4), 1, unsure)
    kept = verdict(steps(0.5, 0.7, 0.6), 0)
    assert "model 0" in kept and "6 samples" in kept and "lowest 0.6000" in kept
    assert "not one sample" in verdict(steps(0.5, 0.5, accepted=0), 0)
    capped = [*steps(0.5), replace(steps(0.5, 0.5, accepted=0)[1], stopped_by="budget.max_calls is 0: 0 were made")]
    assert "a cap ended the run before a sample was written (budget.max_calls is 0" in verdict(capped, 0)


def test_a_choice_that_the_test_rows_contradict_is_said_aloud() -> None:
    before, worse, better = evaluation(0.5), evaluation(0.6), evaluation(0.4)
    assert "worse: loss 0.6000, plain student 0.5000" in caution(before, worse)
    assert caution(before, better) == caution(before, before) == ""


def test_changes_per_class_leave_out_classes_without_rows() -> None:
    before = report(a=(0.5, 10), b=(0.9, 10), c=(0.0, 0), d=(0.3, 5))
    after = report(a=(0.4, 10), b=(0.95, 10), c=(0.7, 0), d=(0.3, 5))
    assert [row[0] for row in class_changes(before, after)] == ["b", "a"]
    assert class_changes(before, replace(before)) == []
