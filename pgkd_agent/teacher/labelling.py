"""`LabellingTeacher`: the teacher labels texts that are there, chosen by the student, in place of writing others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pgkd_agent.errors import BudgetExceededError
from pgkd_agent.loop.choosing import Choice, choose, margins, nearest
from pgkd_agent.loop.history import texts_of
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.loop.trust import GoldCheck, Trust, left_out
from pgkd_agent.metrics.report import class_ids
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.annotation import Annotate, Answer, Doubt
from pgkd_agent.teacher.calls.question import CallId
from pgkd_agent.teacher.ensemble import with_calls_of
from pgkd_agent.text import counted
from pgkd_agent.types import (
    Example,
    GeneratedSample,
    Label,
    Probabilities,
    Shares,
    TeacherReply,
    TeacherRequest,
    TokenUsage,
    label_names,
)

CANDIDATES = 6
"""Classes that the teacher chooses from: of the likeliest so many the right one is nearly always one."""
ROWS_PER_CANDIDATE = 2
"""Labelled rows that stand in the prompt for each."""
GOLD_ROWS = 64
"""Training rows by which the teacher's accuracy is measured before it labels any other text."""
MOST_LOOKED_AT = 20_000
"""Texts that the student looks at in a step; of a larger pool so many are drawn."""
LEAST_SHARE = 0.005
"""Probability below which a class has no part in a row's label."""


class CachedEmbedder:
    """Embeds each text once.

    Args:
        embed: From texts to an array of shape (n_texts, width).
    """

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray]) -> None:
        self._embed = embed
        self._vectors: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        if new:
            self._vectors.update(zip(new, self._embed(new), strict=True))
        return np.stack([self._vectors[text] for text in texts])


@dataclass(frozen=True)
class Pool:
    """Texts without labels.

    Attributes:
        predict: The student as it is now: shape (n_texts, n_classes).
        embed: Vectors with a length of 1, shape (n_texts, width), by an encoder that stays as it is.
        class_texts: A text about each class, in the order of the taxonomy.
    """

    texts: Sequence[str]
    predict: Callable[[Sequence[str]], Probabilities]
    embed: Callable[[Sequence[str]], np.ndarray]
    class_texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text of the pool with its label.

    Attributes:
        label: The likeliest one by both together.
        student, teacher: What each of them says by itself.
        shares: What both think together.
    """

    text: str
    label: str
    student: str
    teacher: str
    shares: Shares


@dataclass
class Labelling:
    """What a step came to; `num_chosen` texts were to be labelled, `stopped_by` is the cap that ended it, or empty."""

    rows: list[Labelled] = field(default_factory=list)
    num_chosen: int = 0
    num_requests: int = 0
    num_unreadable: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0
    stopped_by: str = ""

    def count(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.num_requests += 1
            self.num_unreadable += not answer.is_readable
            self.usage += answer.usage
            self.seconds += answer.seconds

    def add(self, other: Labelling) -> None:
        """What it took, without its rows."""
        self.num_requests += other.num_requests
        self.num_unreadable += other.num_unreadable
        self.usage += other.usage
        self.seconds += other.seconds


class LabellingTeacher:
    """Chooses texts that the student is unsure of, and has them labelled.

    Before the first of them it labels training rows whose label is known and hidden from it. How well it does there is
    how much its word counts against the student's (`Trust`); where it does not help there, it labels nothing.

    Args:
        train: Rows with labels, for comparison.
        seed: Draws what is looked at of a large pool.
        on_request: Told the KD step, and how many texts of how many are labelled.
        on_gold: Told how the gold rows went.
        on_phase: Told the KD step and what begins in it.
    """

    def __init__(
        self,
        annotate: Annotate,
        pool: Pool,
        train: Sequence[Example],
        taxonomy: Sequence[Label],
        seed: int,
        choose_texts: Choice = choose,
        on_request: Callable[[int, int, int], None] | None = None,
        on_gold: Callable[[GoldCheck], None] | None = None,
        on_phase: Callable[[int, str], None] | None = None,
    ) -> None:
        self._annotate = annotate
        self._pool = pool
        self._train = train
        self._names = label_names(taxonomy)
        self._taxonomy = taxonomy
        self._labels = class_ids(train, taxonomy)
        self._seed = seed
        self._choose = choose_texts
        self._on_request = on_request or (lambda kd_step, answered, planned: None)
        self._on_gold = on_gold or (lambda check: None)
        self._on_phase = on_phase or (lambda kd_step, what: None)
        self._left = list(range(len(pool.texts)))
        self._embed = CachedEmbedder(pool.embed)
        self._gold: GoldCheck | None = None

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Label `request.num_labels` texts of the pool; see `label`."""
        done = self.label(request.kd_step, request.num_labels)
        return TeacherReply(
            samples=tuple(
                GeneratedSample(row.text, row.label, number, "labelled", row.shares)
                for number, row in enumerate(done.rows)
            ),
            num_requests=done.num_requests,
            num_malformed=done.num_unreadable,
            usage=done.usage,
            teacher=self._annotate.model_id,
            stopped_by=done.stopped_by,
            num_labels=done.num_chosen,
        )

    def label(self, kd_step: int, num: int) -> Labelling:
        """Label so many texts; each text is chosen once. Where a cap ends it, return what came until then.

        Args:
            kd_step: For the log of calls.
        Raises:
            TeacherUnavailableError: The provider failed for good.
        """
        done = Labelling()
        gold = self._gold or self._checked(kd_step, done)
        if not done.stopped_by:
            self._gold = gold
            if num and gold.is_of_use:
                self._label(kd_step, num, gold.trust, done)
        return done

    def _checked(self, kd_step: int, done: Labelling) -> GoldCheck:
        """On the training rows that the others leave most in doubt."""
        prior = left_out(self._train_vectors, self._labels, self._pool.embed(self._pool.class_texts))
        rows = [int(row) for row in np.argsort(margins(prior), kind="stable")[:GOLD_ROWS]]
        doubts = [
            self._doubt(CallId(kd_step, place), self._train[row].text, prior[row], hidden=row)
            for place, row in enumerate(rows)
        ]
        answers = self._ask(doubts, done)
        words = [answers[place].word if place in answers else None for place in range(len(doubts))]
        check = GoldCheck.of([self._train[row] for row in rows], self._taxonomy, prior[rows], words)
        if not done.stopped_by:
            self._on_gold(check)
        return check

    def _label(self, kd_step: int, num: int, trust: Trust, done: Labelling) -> None:
        looked_at = self._left
        if len(looked_at) > MOST_LOOKED_AT:
            looked_at = rng(self._seed, kd_step, "pool").sample(looked_at, MOST_LOOKED_AT)
        texts = [self._pool.texts[number] for number in looked_at]
        if not texts:
            return
        self._on_phase(kd_step, f"choosing among {counted(len(texts), 'text')}")
        prior = self._pool.predict(texts)
        chosen = self._choose(prior, self._embed(texts), num)
        done.num_chosen = len(chosen)
        taken = {looked_at[row] for row in chosen}
        self._left = [number for number in self._left if number not in taken]
        self._on_phase(kd_step, f"asking the teacher about {counted(len(chosen), 'text')}")
        doubts = [self._doubt(CallId(kd_step, place), texts[row], prior[row]) for place, row in enumerate(chosen)]
        for place, answer in sorted(self._ask(doubts, done).items()):
            if word := answer.word:
                own = prior[chosen[place]]
                opinion = trust.together(own, word)
                both, student, teacher = (
                    self._names[int(label)] for label in (opinion.argmax(), own.argmax(), word.label)
                )
                shares = _shares(opinion, self._names)
                done.rows.append(Labelled(doubts[place].text, both, student, teacher, shares))

    def _doubt(self, call_id: CallId, text: str, prior: np.ndarray, hidden: int | None = None) -> Doubt:
        """With the rows of each candidate that are nearest to the text.

        Args:
            hidden: The training row that the text is, and that is not shown.
        """
        candidates = tuple(int(label) for label in np.argsort(-prior, kind="stable")[:CANDIDATES])
        vectors, vector = self._train_vectors, self._embed([text])[0]
        rows: list[Example] = []
        for candidate in candidates:
            own = [int(row) for row in np.flatnonzero(self._labels == candidate) if row != hidden]
            rows += [self._train[own[near]] for near in nearest(vectors[own], vector, ROWS_PER_CANDIDATE)]
        return Doubt(call_id, text, candidates, tuple(rows))

    def _ask(self, doubts: Sequence[Doubt], done: Labelling) -> dict[int, Answer]:
        """By the place of the doubt; fewer than there are doubts where a cap is reached."""
        answers: dict[int, Answer] = {}
        try:
            for place, answer in self._annotate.label(doubts):
                answers[place] = answer
                self._on_request(doubts[0].call_id.kd_step, len(answers), len(doubts))
        except BudgetExceededError as error:
            done.stopped_by = str(error)
        done.count(answers.values())
        return answers

    @cached_property
    def _train_vectors(self) -> np.ndarray:
        return self._embed(texts_of(self._train))


def _shares(opinion: np.ndarray, names: Sequence[str]) -> Shares:
    kept = [int(label) for label in np.argsort(-opinion, kind="stable") if opinion[label] >= LEAST_SHARE]
    total = float(opinion[kept].sum())
    return tuple((names[label], round(float(opinion[label]) / total, 4)) for label in kept)


class WritingAndLabelling:
    """Two teachers of one step: what both bring is trained on together."""

    def __init__(self, writer: Teacher, labeller: LabellingTeacher) -> None:
        self._writer = writer
        self._labeller = labeller

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Write `request.num_samples`, then label `request.num_labels`; after a cap the second is left out."""
        written = self._writer.write(request)
        if written.stopped_by:
            return written
        labelled = self._labeller.write(request)
        return replace(
            with_calls_of(written, labelled),
            samples=written.samples + labelled.samples,
            stopped_by=labelled.stopped_by,
            num_labels=labelled.num_labels,
        )
