"""Temperature scaling against what is known of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.errors import ConfigError
from pgkd_agent.metrics.calibration import (
    CALIBRATION_FILE,
    TEMPERATURES,
    Calibration,
    calibrated_losses,
    calibration_error,
    errors_of,
    fit_temperature,
    read_temperature,
    with_temperature,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax: a classifier that is calibrated as it is."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, classes)) * 2
    return logits, np.array([generator.choice(classes, p=row) for row in softmax(logits)])


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_finds_by_how_much_a_classifier_is_too_sure(sharpness: float) -> None:
    logits, gold = drawn(4000, 10)
    probabilities = softmax(logits * sharpness)
    temperature = fit_temperature(probabilities, gold)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    errors = errors_of(probabilities, gold, temperature)
    assert errors.after < 0.03
    if sharpness != 1.0:
        assert errors.before > 3 * errors.after


def test_rows_that_are_all_right_do_not_make_it_sure_of_everything() -> None:
    probabilities = np.full((20, 4), 0.1) + np.eye(4)[np.arange(20) % 4] * 0.6
    temperature = fit_temperature(probabilities, np.arange(20) % 4)
    assert 0.1 < temperature < 1.0
    assert with_temperature(probabilities, temperature).max() < 1.0


@pytest.mark.parametrize("certainty", [0.26, 0.3, 0.5])
@pytest.mark.parametrize("rows", [20, 200, 2000])
def test_after_a_short_fit_confidences_stay_below_1(certainty: float, rows: int) -> None:
    gold = np.arange(rows) % 4
    probabilities = np.full((rows, 4), (1 - certainty) / 3)
    probabilities[np.arange(rows), gold] = certainty
    temperature = fit_temperature(probabilities, gold)
    assert temperature == TEMPERATURES[0]
    assert with_temperature(probabilities, temperature).max() < 0.97


def test_a_temperature_at_a_bound_is_spoken_of() -> None:
    errors = errors_of(np.array([[0.7, 0.3]]), np.array([0]), 1.0)
    notes = [Calibration(temperature, 20, errors).note for temperature in (*TEMPERATURES, 1.0)]
    assert ["trained too little" in notes[0], "mostly wrong" in notes[1], notes[2]] == [True, True, ""]


def test_a_row_that_is_impossible_ends_in_no_infinity() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert np.isfinite(fit_temperature(probabilities, np.array([0, 1, 1])))
    assert np.isfinite(with_temperature(probabilities, 0.1)).all()


@given(st.integers(0, 100), st.floats(0.1, 20))
def test_keeps_the_order_of_the_labels_and_sums_to_1(seed: int, temperature: float) -> None:
    probabilities = softmax(np.random.default_rng(seed).normal(size=(5, 7)) * 4)
    scaled = with_temperature(probabilities, temperature)
    assert scaled.sum(axis=1) == pytest.approx(1)
    assert (scaled.argsort(axis=1) == probabilities.argsort(axis=1)).all()
    assert with_temperature(probabilities, 1.0) == pytest.approx(probabilities)


def test_the_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.array([[0.9, 0.1]] * 10)
    assert calibration_error(sure, np.zeros(10, int)) == pytest.approx(0.1)
    assert calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0)
    # Within a bin too sure and too unsure rows cancel out, in two bins they do not.
    both = np.array([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2)
    assert calibration_error(both, np.array([0, 1, 0, 0])) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_a_folder_without_one_takes_probabilities_as_they_are(tmp_path: Path) -> None:
    assert read_temperature(tmp_path) == 1.0
    (tmp_path / CALIBRATION_FILE).write_text(json.dumps({"temperature": 1.5}))
    assert read_temperature(tmp_path) == 1.5


@pytest.mark.parametrize("content", ["{", "[]", '{"temperature": "hot"}', '{"temperature": 0}', '{"temperature": NaN}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(ConfigError, match="remove it"):
        read_temperature(tmp_path)


def test_the_calibrated_loss_is_that_of_what_a_temperature_leaves() -> None:
    generator = np.random.default_rng(3)
    gold = generator.integers(0, 3, 400)
    logits = generator.normal(size=(400, 3)) + 2 * np.eye(3)[gold]
    losses = [calibrated_losses(with_temperature(np.exp(logits), scale), gold).mean() for scale in (0.2, 0.4, 1.0)]
    assert losses == pytest.approx([losses[0]] * 3, abs=0.01), "how sure the model is does not count"
    shuffled = np.exp(logits)[generator.permutation(400)]
    assert calibrated_losses(shuffled, gold).mean() > losses[0] + 0.3, "what it knows does"
