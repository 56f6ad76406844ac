"""Records shared by all layers: frozen, without torch, LangChain or files behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.floating]
"""Shape (n_rows, n_classes); rows sum to 1; columns in the order of the taxonomy."""


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Label:
    """A class of the taxonomy; an empty description means that none was given."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One row of a classification report; precision, recall and F1 in [0, 1].

    With `support` 0 the three are meaningless: read `has_data` first.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int

    @property
    def has_data(self) -> bool:
        return self.support > 0


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Aggregates only, never a text: this is what the teacher may see of the validation rows.

    Attributes:
        classes: One per label, in the order of the taxonomy.
        accuracy: In [0, 1].
        macro_f1: Mean F1 over the classes with support (the headline).
        macro_f1_all: Mean F1 over all of the taxonomy, a class without support counting 0.
        weighted_f1: Mean F1 weighted by support.
        n_rows: Rows evaluated.
    """

    classes: tuple[ClassMetrics, ...]
    accuracy: float
    macro_f1: float
    macro_f1_all: float
    weighted_f1: float
    n_rows: int

    def of(self, label: str) -> ClassMetrics:
        return next(row for row in self.classes if row.label == label)


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of `gold_label` that were taken for `predicted_label`; the two differ, `count` >= 1."""

    gold_label: str
    predicted_label: str
    count: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Aggregates over rows.

    Attributes:
        loss: Mean cross-entropy in nats.
        confusions: All pairs of classes with mistakes, most frequent first.
    """

    loss: float
    report: ClassificationReport
    confusions: tuple[Confusion, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceItem:
    """A row of the history with what the student makes of it; `confidence` is p(predicted) in [0, 1]."""

    text: str
    gold_label: str
    predicted_label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The three disjoint pools of Algorithm 1, lines 4-5; hard negatives come most confident first."""

    correct: tuple[EvidenceItem, ...] = ()
    misclassified: tuple[EvidenceItem, ...] = ()
    hard_negatives: tuple[EvidenceItem, ...] = ()


@dataclass(frozen=True, slots=True)
class WrittenSample:
    """An accepted sample of an earlier KD step, with what the student makes of it after training on it."""

    text: str
    label: str
    kd_step: int
    predicted_label: str

    @property
    def is_right(self) -> bool:
        return self.predicted_label == self.label


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """What the teacher gets to know in one KD step.

    Attributes:
        kd_step: 1 for the first request.
        num_samples: Samples asked for (the paper's PGKD batch size).
        num_labels: Texts of the pool to label; 0 without a pool.
        report: Of the current student on the validation rows.
        evidence: Pools for the whole step.
        scored: All rows the pools were drawn from, for requests about one class.
        few_shot: Real training rows, class-balanced.
        train: All real training rows, for shots about one class.
        confusions: Of the current student on the validation rows, most frequent first.
        written: What this teacher wrote before, oldest first; empty where the student was not asked about it.
    """

    kd_step: int
    num_samples: int
    taxonomy: tuple[Label, ...]
    task_description: str
    report: ClassificationReport
    evidence: Evidence
    few_shot: tuple[Example, ...]
    scored: tuple[EvidenceItem, ...] = ()
    train: tuple[Example, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    written: tuple[WrittenSample, ...] = ()
    num_labels: int = 0


Source = Literal["real", "written", "labelled"]
"""Where a training row is from: given with its label, written by the teacher, or a given text that it labelled."""

Shares = tuple[tuple[str, float], ...]
"""A distribution over labels, likeliest first, without those that have next to nothing; empty for a label as it is."""


@dataclass(frozen=True, slots=True)
class GeneratedSample(Example):
    """A sample of a teacher.

    Attributes:
        request_index: Counts the requests of its KD step from 0.
        shares: What to train on in place of the label.
    """

    request_index: int = 0
    source: Source = "written"
    shares: Shares = ()


Alternatives = tuple[tuple[tuple[str, float], ...], ...]
"""For each token of a reply: what could have stood there and the logarithm of its probability, first what does stand
there, then the likeliest ones."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the provider reports them.

    Attributes:
        estimated_calls: Calls whose provider reports none: their tokens are an estimate, or not known at all.
        batch_input_tokens, batch_output_tokens: Those among them of the provider's batch jobs, which cost less.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    estimated_calls: int = 0
    batch_input_tokens: int = 0
    batch_output_tokens: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated_calls + other.estimated_calls,
            self.batch_input_tokens + other.batch_input_tokens,
            self.batch_output_tokens + other.batch_output_tokens,
        )

    def __str__(self) -> str:
        if not self.is_known:
            return "tokens not known"
        calls = "1 call" if self.estimated_calls == 1 else f"{self.estimated_calls:,} calls"
        how = f" (estimated for {calls}: the provider reports none)" if self.estimated_calls else ""
        batch = f", of these {self.batch_input_tokens} and {self.batch_output_tokens} in batch jobs" * self.is_batch
        return f"{self.input_tokens} tokens in, {self.output_tokens} out{how}{batch}"

    @property
    def is_batch(self) -> bool:
        """Whether any of it is of batch jobs."""
        return (self.batch_input_tokens, self.batch_output_tokens) != (0, 0)

    def in_batch(self) -> TokenUsage:
        """The same, all of it by a batch job."""
        return replace(self, batch_input_tokens=self.input_tokens, batch_output_tokens=self.output_tokens)

    @property
    def is_known(self) -> bool:
        """At least as an estimate."""
        return not self.estimated_calls or (self.input_tokens, self.output_tokens) != (0, 0)


@dataclass(frozen=True, slots=True)
class TeacherReply:
    """All that came back in one KD step.

    Attributes:
        samples: Readable samples, in order; still to be screened.
        num_requests: Model calls made, repeated ones included.
        num_malformed: Pieces of replies that were not a sample.
        num_refused: Replies in which model or filter declined to answer.
        shown_texts: Every text that stood in a prompt, for the guardrail against copies.
        usage: Sum over the calls; without it, their tokens are not known.
        teacher: Which one wrote; empty for a teacher without a name.
        stopped_by: The cap that left no room for a request, in words; then this step is the last one.
        num_labels: Texts of the pool that it was to label.
    """

    samples: tuple[GeneratedSample, ...]
    num_requests: int = 1
    num_malformed: int = 0
    num_refused: int = 0
    shown_texts: frozenset[str] = frozenset()
    usage: TokenUsage = TokenUsage(estimated_calls=1)
    teacher: str = ""
    stopped_by: str = ""
    num_labels: int = 0


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a fit leaves behind for Algorithm 1.

    Attributes:
        epochs: Epochs run, >= 1.
        best_epoch: The epoch whose weights were restored, from 1; 0 where a fit that went on kept those it began with.
        dynamics: Mean predicted probabilities of each training row over the epochs, in the order of
            the rows given, shape (n_rows, n_classes).
        gradient_steps: Of all epochs run.
        validation_loss: Of the weights it ended with, in nats.
        learning_rate: The peak rate.
    """

    epochs: int
    best_epoch: int
    dynamics: Probabilities
    gradient_steps: int = 0
    validation_loss: float = math.inf
    learning_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One line of the run: model `kd_step` after its fit; step 0 is the plain student.

    `evidence_seconds` went into finding the rows shown to the teacher, before this model was trained. `num_requests`
    and `usage` include the calls that verified samples. `stopped_by` is the cap that ended the run with this step.
    """

    kd_step: int
    validation: Evaluation
    is_best: bool
    epochs: int
    history_rows: int
    gradient_steps: int = 0
    learning_rate: float = 0.0
    asked: int = 0
    parsed: int = 0
    accepted: int = 0
    malformed: int = 0
    refused: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    num_requests: int = 0
    usage: TokenUsage = TokenUsage()
    teacher_seconds: float = 0.0
    student_seconds: float = 0.0
    evidence_seconds: float = 0.0
    teacher: str = ""
    stopped_by: str = ""


def label_names(taxonomy: Sequence[Label]) -> tuple[str, ...]:
    return tuple(label.name for label in taxonomy)
