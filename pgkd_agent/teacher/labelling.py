"""`LabellingTeacher`: the teacher labels texts that are there, chosen by the student, in place of writing others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pgkd_agent.errors import BudgetExceededError
from pgkd_agent.loop.choosing import choose, combined, left_out, margins, nearest
from pgkd_agent.loop.history import texts_of
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.annotation import Annotate, Answer, Doubt
from pgkd_agent.teacher.calls.question import CallId
from pgkd_agent.types import (
    Example,
    GeneratedSample,
    GoldCheck,
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


@dataclass
class _Tally:
    """What the calls of a step came to."""

    num_requests: int = 0
    num_unreadable: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    stopped_by: str = ""

    def add(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            self.num_requests += 1
            self.num_unreadable += not answer.is_readable
            self.usage += answer.usage


class LabellingTeacher:
    """Chooses texts that the student is unsure of, and has them labelled.

    Before the first of them it labels training rows whose label is known and hidden from it. How often it is right
    there is how much its word counts against the student's; where both together are no better than the rows alone, it
    labels nothing.

    Args:
        seed: Draws what is looked at of a large pool.
        choose_texts: From probabilities, embeddings and a number to the rows to label.
        on_request: Told the KD step, and how many texts of how many are labelled.
        on_gold: Told how the gold rows went.
    """

    def __init__(
        self,
        annotate: Annotate,
        pool: Pool,
        seed: int,
        choose_texts: Callable[[Probabilities, np.ndarray, int], list[int]] = choose,
        on_request: Callable[[int, int, int], None] | None = None,
        on_gold: Callable[[GoldCheck], None] | None = None,
    ) -> None:
        self._annotate = annotate
        self._pool = pool
        self._seed = seed
        self._choose = choose_texts
        self._on_request = on_request or (lambda kd_step, answered, planned: None)
        self._on_gold = on_gold or (lambda check: None)
        self._left = list(range(len(pool.texts)))
        self._vectors: dict[str, np.ndarray] = {}
        self._gold: GoldCheck | None = None

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Label `request.num_labels` texts of the pool; where a cap ends it, return what came until then.

        Raises:
            TeacherUnavailableError: The provider failed for good.
        """
        tally = _Tally()
        gold = self._gold or self._checked(request, tally)
        samples: tuple[GeneratedSample, ...] = ()
        if not tally.stopped_by:
            self._gold = gold
            samples = self._labelled(request, gold.weight, tally) if gold.is_of_use else ()
        return TeacherReply(
            samples=samples,
            num_requests=tally.num_requests,
            num_malformed=tally.num_unreadable,
            usage=tally.usage,
            teacher=self._annotate.model_id,
            stopped_by=tally.stopped_by,
        )

    def _checked(self, request: TeacherRequest, tally: _Tally) -> GoldCheck:
        """On the training rows that the others leave most in doubt."""
        rows, labels = request.train, self._class_ids(request)
        prior = left_out(self._embed(texts_of(rows)), labels, self._pool.embed(self._pool.class_texts))
        doubtful = [int(row) for row in np.argsort(margins(prior), kind="stable")[:GOLD_ROWS]]
        doubts = [
            self._doubt(request, place, rows[row].text, prior[row], hidden=row) for place, row in enumerate(doubtful)
        ]
        answers = self._ask(doubts, request.kd_step, tally)
        named = {place: answer.label for place, answer in answers.items() if answer.label is not None}
        num_right = sum(label == labels[doubtful[place]] for place, label in named.items())
        accuracy = (num_right + 1) / (len(named) + 2)
        together = [
            combined(prior[row], named[place], CANDIDATES, accuracy) if place in named else prior[row]
            for place, row in enumerate(doubtful)
        ]
        right = labels[doubtful]
        check = GoldCheck(
            n_rows=len(doubtful),
            rows_alone=float((prior[doubtful].argmax(1) == right).mean()),
            teacher=num_right / len(doubtful),
            together=float((np.argmax(together, axis=1) == right).mean()),
            weight=accuracy,
        )
        if not tally.stopped_by:
            self._on_gold(check)
        return check

    def _labelled(self, request: TeacherRequest, accuracy: float, tally: _Tally) -> tuple[GeneratedSample, ...]:
        looked_at = self._left
        if len(looked_at) > MOST_LOOKED_AT:
            looked_at = rng(self._seed, request.kd_step, "pool").sample(looked_at, MOST_LOOKED_AT)
        texts = [self._pool.texts[number] for number in looked_at]
        prior = self._pool.predict(texts)
        chosen = self._choose(prior, self._embed(texts), request.num_labels)
        taken = {looked_at[row] for row in chosen}
        self._left = [number for number in self._left if number not in taken]
        doubts = [self._doubt(request, place, texts[row], prior[row]) for place, row in enumerate(chosen)]
        names = label_names(request.taxonomy)
        samples = []
        for place, answer in sorted(self._ask(doubts, request.kd_step, tally).items()):
            if answer.label is not None:
                opinion = combined(prior[chosen[place]], answer.label, len(doubts[place].candidates), accuracy)
                label = names[int(opinion.argmax())]
                samples.append(GeneratedSample(doubts[place].text, label, place, "labelled", _shares(opinion, names)))
        return tuple(samples)

    def _doubt(
        self, request: TeacherRequest, place: int, text: str, prior: np.ndarray, hidden: int | None = None
    ) -> Doubt:
        """With the rows of each candidate that are nearest to the text.

        Args:
            hidden: The training row that the text is, and that is not shown.
        """
        candidates = tuple(int(label) for label in np.argsort(-prior, kind="stable")[:CANDIDATES])
        vectors, labels, vector = self._embed(texts_of(request.train)), self._class_ids(request), self._embed([text])[0]
        rows: list[Example] = []
        for candidate in candidates:
            own = [int(row) for row in np.flatnonzero(labels == candidate) if row != hidden]
            rows += [request.train[own[near]] for near in nearest(vectors[own], vector, ROWS_PER_CANDIDATE)]
        return Doubt(CallId(request.kd_step, place), text, candidates, tuple(rows))

    def _ask(self, doubts: Sequence[Doubt], kd_step: int, tally: _Tally) -> dict[int, Answer]:
        """By the place of the doubt; fewer than there are doubts where a cap is reached."""
        answers: dict[int, Answer] = {}
        try:
            for place, answer in self._annotate.label(doubts):
                answers[place] = answer
                self._on_request(kd_step, len(answers), len(doubts))
        except BudgetExceededError as error:
            tally.stopped_by = str(error)
        tally.add(answers.values())
        return answers

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        """A text once in a run."""
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        if new:
            self._vectors.update(zip(new, self._pool.embed(new), strict=True))
        return np.stack([self._vectors[text] for text in texts])

    def _class_ids(self, request: TeacherRequest) -> np.ndarray:
        ids = {name: number for number, name in enumerate(label_names(request.taxonomy))}
        return np.array([ids[row.label] for row in request.train])


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
            written,
            samples=written.samples + labelled.samples,
            num_requests=written.num_requests + labelled.num_requests,
            num_malformed=written.num_malformed + labelled.num_malformed,
            usage=written.usage + labelled.usage,
            stopped_by=labelled.stopped_by,
        )
