from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from pgkd_agent.metrics.report import classification_report, evaluate, format_report
from pgkd_agent.types import Confusion, Example, Label
from tests.unit.builders import TAXONOMY

# gold a a b, predicted a b b; nothing of class c
REPORT = classification_report([0, 0, 1], [0, 1, 1], TAXONOMY)


def test_a_class_without_rows_keeps_its_row_and_reads_no_data() -> None:
    assert [row.label for row in REPORT.classes] == ["a", "b", "c"]
    line = next(line for line in format_report(REPORT).splitlines() if line.startswith("c "))
    assert line.split() == ["c", "no", "data", "no", "data", "no", "data", "0"]


def test_headline_macro_leaves_out_what_the_other_counts_as_zero() -> None:
    assert REPORT.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert REPORT.macro_f1_all == pytest.approx((2 / 3 + 2 / 3) / 3)
    assert REPORT.weighted_f1 == pytest.approx(2 / 3)
    assert REPORT.accuracy == pytest.approx(2 / 3)


def test_a_predicted_class_without_gold_rows_costs_precision_only_elsewhere() -> None:
    report = classification_report([0, 0], [0, 2], TAXONOMY)
    assert not report.of("c").has_data
    assert report.of("a").recall == 0.5 and report.macro_f1 == pytest.approx(2 / 3)


def test_figures_are_those_of_scikit_learn_to_the_last_bit() -> None:
    drawn = np.random.default_rng(0)
    gold, predicted = drawn.integers(0, 5, 300), drawn.integers(-1, 6, 300)
    taxonomy = [Label(str(number)) for number in range(7)]  # two of them without rows, one without predictions
    rows = classification_report(gold, predicted, taxonomy).classes
    expected = precision_recall_fscore_support(gold, predicted, labels=np.arange(7), zero_division=0)
    assert [(row.precision, row.recall, row.f1, row.support) for row in rows] == list(zip(*expected, strict=True))


def test_loss_is_the_mean_negative_log_probability_of_the_gold_label() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    result = evaluate(probabilities, [Example("x", "a"), Example("y", "a")], TAXONOMY)
    assert result.loss == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)
    assert result.report.accuracy == 0.5


def test_an_impossible_row_makes_the_loss_infinite_instead_of_hiding() -> None:
    assert evaluate(np.array([[0.0, 1.0, 0.0]]), [Example("x", "a")], TAXONOMY).loss == math.inf


def test_a_part_of_the_report() -> None:
    report = classification_report([0, 0, 1], [1, 1, 1], TAXONOMY)
    worst = format_report(report, worst=1).splitlines()
    assert worst[1].startswith("a ") and not any(line.startswith(("b ", "c ")) for line in worst)
    one = format_report(report, label="b").splitlines()
    assert len(one) == 2 and one[1].startswith("b ")
    two = format_report(report, label="c", rival="a").splitlines()
    assert [line[0] for line in two[1:]] == ["c", "a"]


def test_confusions_are_counted_by_pair_most_frequent_first() -> None:
    predicted = [1, 1, 2, 0, 2]
    rows = [Example(str(number), label) for number, label in enumerate("aaabc")]
    result = evaluate(np.eye(3)[predicted], rows, TAXONOMY)
    assert result.confusions == (Confusion("a", "b", 2), Confusion("a", "c", 1), Confusion("b", "a", 1))
