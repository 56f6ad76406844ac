"""What a teacher's word about a text is worth beside the student's, measured on rows whose label is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np

from pgkd_agent.metrics.intervals import Measured
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
class GoldRow:
    """A training row whose label was hidden, and who names which class.

    Attributes:
        rows_alone: By the other rows.
        teacher: By the teacher; None where it named none.
        together: By both; the teacher's weight comes from the other half of the rows.
        gain: By how many nats the right class is likelier by both than by the other rows alone.
    """

    text: str
    label: str
    rows_alone: str
    teacher: str | None
    together: str
    gain: float

    @property
    def is_suspect(self) -> bool:
        """Whether teacher and other rows both say the same other class."""
        return self.teacher == self.rows_alone != self.label


Who = Literal["rows_alone", "teacher", "together"]


def accuracy(rows: Sequence[GoldRow], who: Who) -> float:
    """In [0, 1]; a row without a class counts as wrong."""
    return mean(float(getattr(row, who) == row.label) for row in rows)


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """How the teacher labels training rows whose label is hidden from it, of those that the other rows leave in doubt.

    Attributes:
        trust: From all of the rows.
    """

    rows: tuple[GoldRow, ...]
    trust: Trust

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

        together = priors.copy()
        every = range(len(gold))
        for half in (0, 1):
            other = trust(every[1 - half :: 2])
            for row in every[half::2]:
                if row in said:
                    together[row] = other.together(priors[row], said[row])
        gains = _logs(together, gold) - _logs(priors, gold)
        checked = (
            GoldRow(
                text=rows[row].text,
                label=rows[row].label,
                rows_alone=taxonomy[int(priors[row].argmax())].name,
                teacher=taxonomy[said[row].label].name if row in said else None,
                together=taxonomy[int(together[row].argmax())].name,
                gain=float(gains[row]),
            )
            for row in every
        )
        return cls(tuple(checked), trust(every))

    def accuracy(self, who: Who) -> float:
        """In [0, 1]; a row without a class counts as wrong."""
        return accuracy(self.rows, who)

    @property
    def gain(self) -> Measured:
        """Of the right class's logarithm, over the rows."""
        return Measured.of([row.gain for row in self.rows])

    @property
    def suspects(self) -> list[GoldRow]:
        """Rows for a person to look at; nothing is changed."""
        return [row for row in self.rows if row.is_suspect]

    @property
    def is_of_use(self) -> bool:
        """Whether the teacher's word makes the labels better, beyond chance.

        Of a few dozen rows the logarithms say more than the number of right ones, and labels in shares are what is
        trained on.
        """
        return self.gain.mean > self.gain.error

    def __str__(self) -> str:
        sentence = (
            f"of {len(self.rows)} labelled rows in doubt the teacher names {self.accuracy('teacher'):.0%} right, the "
            f"other rows alone {self.accuracy('rows_alone'):.0%}, both together {self.accuracy('together'):.0%}"
        )
        if not self.is_of_use:
            return f"{sentence}: its labels would not help, and it is asked for none"
        more_are_right = self.accuracy("together") > self.accuracy("rows_alone")
        return sentence if more_are_right else f"{sentence}, but less sure where they are wrong"


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
