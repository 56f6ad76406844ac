from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.errors import DataError
from pgkd_agent.loop.evidence import (
    EvidenceLimits,
    balanced_sample,
    evidence_of_class,
    evidence_of_pair,
    log_one_sided,
    score_rows,
    select_evidence,
)
from pgkd_agent.types import EvidenceItem, Example
from tests.unit.builders import TAXONOMY, item

LABELS = st.sampled_from(["a", "b", "c"])
ITEMS = st.lists(st.tuples(LABELS, LABELS, st.integers(1, 9)), max_size=40).map(
    lambda rows: [EvidenceItem(f"text {n}", g, p, c / 10) for n, (g, p, c) in enumerate(rows)]
)
LIMITS = st.builds(EvidenceLimits, st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))


@given(ITEMS, LIMITS, st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_pools(items: list[EvidenceItem], limits: EvidenceLimits, seed: int) -> None:
    evidence = select_evidence(items, limits, random.Random(seed))
    wrong = [i for i in items if i.predicted_label != i.gold_label]
    # The most confident mistakes, ties in input order: what a stable sort gives.
    assert list(evidence.hard_negatives) == sorted(wrong, key=lambda i: -i.confidence)[: limits.hard_negatives]
    rest = [i for i in wrong if i not in evidence.hard_negatives]
    assert set(evidence.misclassified) <= set(rest)
    assert len(evidence.misclassified) == min(limits.misclassified, len(rest))
    right = [i for i in items if i.predicted_label == i.gold_label]
    assert set(evidence.correct) <= set(right) and len(evidence.correct) == min(limits.correct, len(right))
    assert evidence == select_evidence(items, limits, random.Random(seed))


@given(st.lists(LABELS, max_size=30), st.integers(0, 12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_samples_are_balanced_where_rows_allow(labels: list[str], size: int, seed: int) -> None:
    rows = [Example(str(n), label) for n, label in enumerate(labels)]
    drawn = balanced_sample(rows, size, random.Random(seed), lambda row: row.label)
    assert len(drawn) == len(set(drawn)) == min(size, len(rows))
    taken, there = Counter(row.label for row in drawn), Counter(labels)
    for label in there:
        if taken[label] < there[label]:  # not exhausted, so at most one behind any other
            assert all(taken[other] <= taken[label] + 1 for other in there)


def test_evidence_of_a_class_has_its_rows_and_those_taken_for_it() -> None:
    items = [item("a", "a"), item("a", "b"), item("b", "a", 0.9), item("b", "c"), item("c", "c")]
    evidence = evidence_of_class(items, "a", EvidenceLimits(5, 5, 1), random.Random(0))
    assert evidence.hard_negatives == (items[2],)
    assert evidence.misclassified == (items[1],) and evidence.correct == (items[0],)


def test_evidence_of_a_pair_has_only_what_stays_within_it() -> None:
    items = [item("a", "a"), item("a", "b"), item("b", "a", 0.9), item("b", "c"), item("c", "a"), item("b", "b")]
    evidence = evidence_of_pair(items, ("b", "a"), EvidenceLimits(5, 5, 1), random.Random(0))
    assert evidence.hard_negatives == (items[2],) and evidence.misclassified == (items[1],)
    assert {*evidence.correct} == {items[0], items[5]}


def test_scoring_takes_the_most_probable_label_and_its_probability() -> None:
    (scored,) = score_rows([Example("x", "a")], np.array([[0.2, 0.7, 0.1]]), TAXONOMY)
    assert (scored.gold_label, scored.predicted_label, scored.confidence) == ("a", "b", 0.7)


def test_a_gold_label_outside_the_taxonomy_is_an_error() -> None:
    with pytest.raises(DataError, match=r"outside the taxonomy: \['z'\]"):
        score_rows([Example("x", "z")], np.ones((1, 3)) / 3, TAXONOMY)


def test_rows_that_are_all_right_or_all_wrong_are_told_as_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pgkd_agent")
    log_one_sided([item("a", "a"), item("b", "a")], "dynamics", 1)
    assert caplog.messages == []  # one mistake is a hard negative: there is none left for the other pool
    log_one_sided([item("a", "a"), item("b", "b")], "history", 2)
    log_one_sided([item("a", "b")], "out_of_fold", 3)
    assert "KD step 2: the student gets all 2 rows right (evidence.source: history)" in caplog.messages[0]
    assert "no mistakes; this is no error" in caplog.messages[0]
    assert "gets none of 1 row right" in caplog.messages[1] and "mistakes only" in caplog.messages[1]
