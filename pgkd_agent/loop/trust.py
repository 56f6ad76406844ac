"""What a teacher's word about a text is worth beside the student's, measured on rows whose label is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pgkd_agent.metrics.report import class_ids
from pgkd_agent.types import Example, Label, Probabilities

SHARPNESS = np.concatenate([[0.0], np.geomspace(0.1, 4, 25)])
"""Tried as the power to which a teacher's probabilities are raised; at 0 they say nothing."""
SCALES = np.geomspace(2, 60, 30)
"""Tried as the factor between a cosine and a logit."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a teacher says about a text.

    Attributes:
        label: Class id that it names.
        candidates: Class ids that it chose from.
        chances: Its probability of each of them; empty where it only named one.
    """

    label: int
    candidates: tuple[int, ...]
    chances: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Trust:
    """How much a teacher's word counts.

    Attributes:
        accuracy: How often a class that it names is right; where it errs, it takes each other candidate as often.
        sharpness: Power of its probabilities, below 1 for one that is too sure of itself; None where it gave none.
    """

    accuracy: float
    sharpness: float | None = None

    @classmethod
    def measured(cls, priors: Probabilities, words: Sequence[Word], gold: np.ndarray) -> Trust:
        """From rows with known labels.

        Args:
            priors: What is thought of the rows without the teacher, shape (n_rows, n_classes).
            words: About each row.
            gold: Class ids, shape (n_rows,).
        """
        num_right = sum(int(word.label == label) for word, label in zip(words, gold, strict=True))
        accuracy = (num_right + 1) / (len(words) + 2)  # drawn a little towards one half
        with_chances = [row for row, word in enumerate(words) if word.chances]
        if not with_chances:
            return cls(accuracy)

        def loss(sharpness: float) -> float:
            trust = cls(accuracy, sharpness)
            together = np.stack([trust.together(priors[row], words[row]) for row in with_chances])
            return -float(_logs(together, gold[with_chances]).mean())

        return cls(accuracy, float(min(SHARPNESS, key=loss)))

    def together(self, prior: np.ndarray, word: Word) -> np.ndarray:
        """What both think, by Bayes' rule.

        Args:
            prior: The student's probabilities, shape (n_classes,).
        Returns:
            Shape (n_classes,), sums to 1.
        """
        if word.chances and self.sharpness is not None:
            likelihood = np.full(len(prior), min(word.chances))
            likelihood[list(word.candidates)] = word.chances
            likelihood **= self.sharpness
        else:
            likelihood = np.full(len(prior), (1 - self.accuracy) / max(len(word.candidates) - 1, 1))
            likelihood[word.label] = self.accuracy
        posterior = prior * likelihood
        return np.asarray(posterior / posterior.sum())


@dataclass(frozen=True, slots=True)
class Suspect:
    """A training row whose label teacher and other rows both doubt: both say the same `other` one."""

    text: str
    label: str
    other: str


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """How the teacher labels training rows whose label is hidden from it, of those that the other rows leave in doubt.

    Attributes:
        rows_alone: Accuracy of what the other rows say, in [0, 1].
        teacher: Accuracy of the teacher.
        together: Accuracy of both; the weight of each half of the rows comes from the other half.
        gain: By how many nats the right class is likelier by both than by the rows alone, mean of the logarithms.
        gain_error: Standard error of that.
        trust: From all of the rows.
        suspects: Rows for a person to look at; nothing is changed.
    """

    n_rows: int
    rows_alone: float
    teacher: float
    together: float
    gain: float
    gain_error: float
    trust: Trust
    suspects: tuple[Suspect, ...] = ()

    @classmethod
    def of(
        cls, rows: Sequence[Example], taxonomy: Sequence[Label], priors: Probabilities, words: Sequence[Word | None]
    ) -> GoldCheck:
        """
        Args:
            priors: What the other rows say of each, shape (n_rows, n_classes).
            words: None where the teacher named no class.
        """
        gold = class_ids(rows, taxonomy)
        said = {row: word for row, word in enumerate(words) if word is not None}

        def trust(some: Sequence[int]) -> Trust:
            named = [row for row in some if row in said]
            return Trust.measured(priors[named], [said[row] for row in named], gold[named])

        alone, together = priors.argmax(axis=1), priors.copy()
        every = range(len(gold))
        for half in (0, 1):
            other = trust(every[1 - half :: 2])
            for row in every[half::2]:
                if row in said:
                    together[row] = other.together(priors[row], said[row])
        gains = _logs(together, gold) - _logs(priors, gold)
        return cls(
            n_rows=len(gold),
            rows_alone=float((alone == gold).mean()),
            teacher=sum(int(word.label == gold[row]) for row, word in said.items()) / len(gold),
            together=float((together.argmax(axis=1) == gold).mean()),
            gain=float(gains.mean()),
            gain_error=float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else math.inf,
            trust=trust(every),
            suspects=tuple(
                Suspect(rows[row].text, rows[row].label, taxonomy[word.label].name)
                for row, word in said.items()
                if word.label == alone[row] != gold[row]
            ),
        )

    @property
    def is_of_use(self) -> bool:
        """Whether the teacher's word makes the labels better, beyond chance.

        Of a few dozen rows the logarithms say more than the number of right ones, and labels in shares are what is
        trained on.
        """
        return self.gain > self.gain_error

    def __str__(self) -> str:
        sentence = (
            f"of {self.n_rows} labelled rows in doubt the teacher names {self.teacher:.0%} right, the other rows alone "
            f"{self.rows_alone:.0%}, both together {self.together:.0%}"
        )
        if not self.is_of_use:
            return f"{sentence}: its labels would not help, and it is asked for none"
        return sentence if self.together > self.rows_alone else f"{sentence}, but less sure where they are wrong"


def _logs(probabilities: Probabilities, gold: np.ndarray) -> np.ndarray:
    """Of the right class of each row."""
    return np.asarray(np.log(np.maximum(probabilities[np.arange(len(gold)), gold], 1e-12)))


def left_out(embeddings: np.ndarray, labels: np.ndarray, names: np.ndarray) -> Probabilities:
    """What the other rows say of each: softmax over cosines to the mean of each class's rows and its name.

    Args:
        embeddings: Of the rows, shape (n_rows, width), each with a length of 1.
        labels: Class ids, shape (n_rows,).
        names: Embeddings of texts about the classes, shape (n_classes, width).
    """
    sums = names.copy()
    np.add.at(sums, labels, embeddings)
    cosines = embeddings @ _unit(sums).T
    rows = np.arange(len(labels))
    cosines[rows, labels] = (_unit(sums[labels] - embeddings) * embeddings).sum(1)
    candidates = [_softmax(scale * cosines) for scale in SCALES]
    return min(candidates, key=lambda found: -float(_logs(found, labels).mean()))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
