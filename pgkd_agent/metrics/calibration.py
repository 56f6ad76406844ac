"""Temperature scaling (Guo et al. 2017): one number, after which a confidence of 0.8 is right about 8 times in 10."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pgkd_agent.errors import ConfigError
from pgkd_agent.types import Probabilities

CALIBRATION_FILE = "calibration.json"
"""In a model folder."""
BINS = 15
"""Of the expected calibration error, as in Guo et al."""
THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
TEMPERATURES = (0.25, 20.0)
"""Searched between. After a short fit logits are small, and validation rows that are all right ask for ever lower
temperatures, until each confidence is 1.0: some dozens of rows cannot say that. Above, a confidence says nothing."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Expected calibration errors, in [0, 1], as the classifier was and with its temperature.

    Of few rows they come out above 0 by chance: some .03 for 200 rows of a classifier that is calibrated.
    """

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """
    Attributes:
        temperature: Logits are divided by it; above 1 the classifier was too sure of itself.
        rows: Validation rows that it was fitted on.
        validation: On those rows, which flatters.
        test: None without test rows.
    """

    temperature: float
    rows: int
    validation: Errors
    test: Errors | None = None

    @property
    def note(self) -> str:
        """What is to be said of a temperature at a bound of the search; else empty."""
        if self.temperature not in TEMPERATURES:
            return ""
        is_low = self.temperature == TEMPERATURES[0]
        reason = "was trained too little for more" if is_low else "is mostly wrong where it is sure"
        return f"the {'lowest' if is_low else 'highest'} that is fitted, the model {reason}"


def fit_temperature(probabilities: Probabilities, gold: np.ndarray) -> float:
    """The temperature with the lowest log loss, within `TEMPERATURES`.

    A normal prior on its logarithm (mean 0, deviation 1) weighs as much as one row or so: it decides only where the
    rows cannot, as when all of them are classified right and any lower temperature would seem better.

    Args:
        probabilities: Shape (n_rows, n_classes), rows that the classifier was not trained on.
        gold: Their class ids, shape (n_rows,).
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(probabilities, float(np.exp(log_temperature)))[rows, gold]
        return float(-np.log(np.maximum(scaled, np.finfo(float).tiny)).sum() + log_temperature**2 / 2)

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-4})
    temperature = float(np.exp(found.x))
    return next((bound for bound in TEMPERATURES if np.isclose(temperature, bound, rtol=1e-3)), temperature)


def calibrated_losses(probabilities: Probabilities, gold: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row in nats after a temperature that was fitted on the others of two halves.

    Unlike the plain loss it does not say how sure of itself a model is, which a temperature mends, but how well its
    probabilities tell right from wrong.

    Args:
        probabilities, gold: See `fit_temperature`; every other row makes a half.
    """
    losses = np.empty(len(gold))
    for half in (0, 1):
        fitted, judged = slice(1 - half, None, 2), slice(half, None, 2)
        temperature = fit_temperature(probabilities[fitted], gold[fitted])
        scaled = with_temperature(probabilities[judged], temperature)
        losses[judged] = -np.log(np.maximum(scaled[np.arange(len(scaled)), gold[judged]], np.finfo(float).tiny))
    return losses


def with_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Those of the same logits divided by the temperature; which label is the most probable does not change."""
    logits = np.log(np.maximum(probabilities, np.finfo(float).tiny)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return scaled


def calibration_error(probabilities: Probabilities, gold: np.ndarray) -> float:
    """Expected calibration error: how far confidence and accuracy are apart, mean over rows, in bins of equal width."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == gold
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=is_right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(gold))


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is left with a threshold.

    Attributes:
        share: Of rows with at least that confidence, in [0, 1].
        accuracy: On them; None where there are none.
    """

    min_confidence: float
    share: float
    accuracy: float | None


def coverage(probabilities: Probabilities, gold: np.ndarray) -> list[Coverage]:
    """For each of `THRESHOLDS`: how many rows a classifier answers that abstains below it, and how well."""
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == gold
    chosen = [(threshold, confidence >= threshold) for threshold in THRESHOLDS]
    return [
        Coverage(threshold, float(rows.mean()), float(is_right[rows].mean()) if rows.any() else None)
        for threshold, rows in chosen
    ]


def errors_of(probabilities: Probabilities, gold: np.ndarray, temperature: float) -> Errors:
    return Errors(
        calibration_error(probabilities, gold), calibration_error(with_temperature(probabilities, temperature), gold)
    )


def read_temperature(folder: Path) -> float:
    """That of a model folder; 1 where none is stored, as for another tool's model.

    Raises:
        ConfigError: The file is damaged.
    """
    file = folder / CALIBRATION_FILE
    if not file.is_file():
        return 1.0
    try:
        temperature = float(json.loads(file.read_text(encoding="utf-8"))["temperature"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is damaged; remove it to take confidences as they are") from error
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"{file} names a temperature of {temperature}, expected one above 0; remove it")
    return temperature
