from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.loop.trust import GoldCheck, Trust, Word, left_out
from pgkd_agent.types import Example, Label

ALL = (0, 1, 2)
NAMES = ("red", "green", "blue")


@given(st.floats(0.01, 0.99), st.integers(0, 4), st.integers(2, 5))
def test_student_and_teacher_together_are_a_distribution(accuracy: float, label: int, num: int) -> None:
    prior = np.array([0.4, 0.3, 0.2, 0.05, 0.05])
    found = Trust(accuracy).together(prior, Word(label, tuple(range(num))))
    assert found.sum() == pytest.approx(1)
    assert (found[label] > prior[label]) == (accuracy > 1 / num) or accuracy == pytest.approx(1 / num)


@given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.floats(0, 4))
def test_so_they_are_where_the_teacher_gives_probabilities(given: list[float], sharpness: float) -> None:
    chances = tuple(chance / sum(given) for chance in given)
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    found = Trust(0.5, sharpness).together(prior, Word(int(np.argmax(chances)), ALL, chances))
    assert found.sum() == pytest.approx(1) and (found > 0).all()
    if sharpness == 0:
        assert found == pytest.approx(prior), "it says nothing"


def test_a_teacher_that_is_right_half_the_time_outweighs_a_student_in_doubt_but_not_one_that_is_sure() -> None:
    assert Trust(0.5).together(np.array([0.4, 0.35, 0.25]), Word(1, ALL)).argmax() == 1
    assert Trust(0.5).together(np.array([0.9, 0.05, 0.05]), Word(1, ALL)).argmax() == 0


def rows(num: int, is_right: bool, chances: tuple[float, ...]) -> tuple[np.ndarray, list[Word], np.ndarray]:
    """Priors that know nothing, words that are all right or all wrong, and what is right."""
    gold = np.arange(num) % 3
    named = gold if is_right else (gold + 1) % 3
    words = [Word(int(label), ALL, tuple(np.roll(chances, label))) for label in named]
    return np.full((num, 3), 1 / 3), words, gold


def check_of(priors: np.ndarray, words: Sequence[Word | None], gold: np.ndarray) -> GoldCheck:
    labelled = [Example(f"text {row}", NAMES[label]) for row, label in enumerate(gold)]
    return GoldCheck.of(labelled, [*map(Label, NAMES)], priors, words)


def test_what_a_teacher_is_sure_of_counts_as_much_as_it_was_right() -> None:
    sure = (0.98, 0.01, 0.01)
    assert Trust.measured(*rows(30, True, sure)).sharpness > 1
    assert Trust.measured(*rows(30, False, sure)).sharpness == 0
    priors, words, gold = rows(30, True, sure)
    half_wrong = [word if row % 2 else rows(30, False, sure)[1][row] for row, word in enumerate(words)]
    assert 0 < Trust.measured(priors, half_wrong, gold).sharpness < 0.8, "too sure of itself"


def test_without_probabilities_the_share_of_right_classes_counts() -> None:
    priors, words, gold = rows(8, True, ())
    assert Trust.measured(priors, words, gold) == Trust(0.9)
    assert Trust.measured(priors[:0], [], gold[:0]) == Trust(0.5)


def test_the_weight_of_a_row_comes_from_other_rows() -> None:
    """Right on every other row and wrong on the rest: each half makes believe that the teacher is the reverse."""
    priors, words, gold = rows(8, True, ())
    priors = priors + np.array([[0.001 * (label == right) for label in ALL] for right in gold])
    mixed = [word if row % 2 else Word((word.label + 1) % 3, ALL) for row, word in enumerate(words)]
    check = check_of(priors, mixed, gold)
    assert check.accuracy("teacher") == 0.5 and check.accuracy("rows_alone") == 1
    assert check.accuracy("together") == 0 and not check.is_of_use


def test_a_teacher_that_makes_the_right_class_likelier_is_of_use_though_no_more_are_right() -> None:
    gold = np.arange(32) % 3
    priors = np.full((32, 3), 0.05) + 0.85 * np.eye(3)[(gold + 1) % 3]
    words = [Word(int(label), ALL, tuple(np.roll((0.4, 0.35, 0.25), label))) for label in gold]
    check = check_of(priors, words, gold)
    assert check.accuracy("together") == 0 and check.gain.mean > check.gain.error and check.is_of_use
    unsure = [Word(word.label, ALL, (1 / 3,) * 3) for word in words]
    assert check_of(priors, unsure, gold).gain.mean == 0 and not check_of(priors, unsure, gold).is_of_use


def test_rows_whose_label_both_doubt_are_listed() -> None:
    priors, words, gold = rows(4, True, ())
    priors = np.eye(3)[gold] * 0.9 + 0.03
    gold = gold.copy()
    gold[1] = 2
    check = check_of(priors, [*words[:3], None], gold)
    assert [(row.text, row.label, row.teacher) for row in check.suspects] == [("text 1", "blue", "green")]
    assert check.rows[3].teacher is None and check.accuracy("teacher") == 0.5, "a row without a word counts as wrong"


def test_a_row_does_not_speak_for_itself() -> None:
    """Two rows alike with other labels: each is taken for the other's class, unlike in a mean with itself."""
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    names = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    found = left_out(rows, np.array([0, 1, 2]), names)
    assert found.argmax(axis=1).tolist() == [1, 0, 2]
    assert found.sum(axis=1) == pytest.approx([1, 1, 1])


def test_probabilities_count_only_where_their_sharpness_was_measured() -> None:
    prior = np.array([0.4, 0.3, 0.3])
    with_chances, without = Word(1, ALL, (0.01, 0.98, 0.01)), Word(1, ALL)
    assert Trust(0.5).together(prior, with_chances) == pytest.approx(Trust(0.5).together(prior, without))
    assert Trust(0.5, 1.0).together(prior, with_chances)[1] > Trust(0.5).together(prior, without)[1]


def test_one_row_says_nothing_about_a_teacher() -> None:
    priors, words, gold = rows(1, True, ())
    assert not check_of(priors, words, gold).is_of_use
