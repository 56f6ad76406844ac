"""Teachers that know the answers, and err as often as they are told to."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Literal

import numpy as np

from pgkd_agent import PGKDConfig
from pgkd_agent.loop.trust import Word
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.annotation import Annotate, Answer, Doubt
from pgkd_agent.teacher.prompting.planning import plan_requests
from pgkd_agent.types import EvidenceItem, Example, GeneratedSample, TeacherReply, TeacherRequest, label_names

Embed = Callable[[Sequence[str]], np.ndarray]
Like = Literal["any", "hard", "right"]


class SimulatedAnnotator:
    """Right with a given probability; else it names one of the three likeliest other candidates.

    Args:
        gold: Class id of each text.
    """

    def __init__(self, gold: Mapping[str, int], accuracy: float, seed: int) -> None:
        self.model_id = f"simulated, right {accuracy:.0%} of the time"
        self._gold = gold
        self._accuracy = accuracy
        self._seed = seed

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        for number, doubt in enumerate(doubts):
            draw = random.Random(f"{self._seed} {doubt.text}")  # a text has one answer, whenever it is asked about
            gold = self._gold[doubt.text]
            if draw.random() >= self._accuracy:
                gold = draw.choice([label for label in doubt.candidates if label != gold][:3])
            yield number, Answer(Word(gold, doubt.candidates) if gold in doubt.candidates else None)


class VotingAnnotator:
    """What would be known of an LLM that only names a class, asked so many times: draws from its probabilities."""

    def __init__(self, annotator: Annotate, num_votes: int, seed: int) -> None:
        self.model_id = f"{annotator.model_id}, {num_votes} votes"
        self._annotator = annotator
        self._num_votes = num_votes
        self._seed = seed

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        for number, answer in self._annotator.label(doubts):
            has_chances = answer.word is not None and answer.word.chances
            yield number, replace(answer, word=self._voted(answer.word)) if answer.word and has_chances else answer

    def _voted(self, word: Word) -> Word:
        draw = np.random.default_rng([self._seed, *word.candidates])
        votes = draw.multinomial(self._num_votes, np.array(word.chances) / sum(word.chances)) + 0.5
        named = word.candidates[int(votes.argmax())]
        return Word(named, word.candidates, tuple(float(share) for share in votes / votes.sum()))


class SimulatedWriter:
    """Writes rows of a pool, each once.

    Args:
        pool: With the labels that people gave them.
        accuracy: Share of samples that have the label asked for; the others are rows of any other class.
        is_guided: Whether weak classes come first, as in prompts about one class; else all in turn.
        like: What a sample is like: a `hard` negative of its class (a row that the student gets wrong, the most
            confident first), a row that it gets `right`, or `any`.
        embed: Vectors with a length of 1, by which likeness is known.
    """

    def __init__(
        self, pool: Sequence[Example], accuracy: float, config: PGKDConfig, is_guided: bool, like: Like, embed: Embed
    ) -> None:
        self.model_id = f"simulated writer, right {accuracy:.0%} of the time"
        self._accuracy = accuracy
        self._seed = config.seed
        self._size = config.teacher.samples_per_request
        self._is_guided = is_guided
        self._like = like
        self._embed = embed
        self._asked: Counter[str] = Counter()
        self._stock: dict[str, list[str]] = {}
        for row in pool:
            self._stock.setdefault(row.label, []).append(row.text)

    def write(self, request: TeacherRequest) -> TeacherReply:
        draw = rng(self._seed, request.kd_step, "simulated writer")
        samples = []
        shown = self._shown(request, draw)
        for label in self._labels(request, draw):
            others = [name for name, texts in self._stock.items() if texts and name != label]
            source = label if draw.random() < self._accuracy or not others else draw.choice(others)
            if texts := self._stock.get(source):
                model = next(shown.get(label, iter(())), None)
                taken = -1 if model is None else int((self._embed(texts) @ self._embed([model])[0]).argmax())
                samples.append(GeneratedSample(texts.pop(taken), label))
        return TeacherReply(tuple(samples), num_requests=1)

    def _shown(self, request: TeacherRequest, draw: random.Random) -> dict[str, Iterator[str]]:
        """Rows of each class that its samples are to be like, again and again in turn."""
        is_hard, rows = self._like == "hard", defaultdict[str, list[EvidenceItem]](list)
        for item in request.scored if self._like != "any" else ():
            if (item.gold_label != item.predicted_label) == is_hard:
                rows[item.gold_label].append(item)
        for own in rows.values():
            draw.shuffle(own)
            if is_hard:
                own.sort(key=lambda item: -item.confidence)
        return {label: cycle([item.text for item in own]) for label, own in rows.items()}

    def _labels(self, request: TeacherRequest, draw: random.Random) -> list[str]:
        """Of each sample to write."""
        if self._is_guided:
            planned = plan_requests(request.report, request.num_samples, self._size, draw, self._asked)
            self._asked.update(one.label for one in planned)
            return [one.label for one in planned for _ in range(one.num_samples)]
        names = label_names(request.taxonomy)
        first = (request.kd_step - 1) * request.num_samples
        return [names[(first + number) % len(names)] for number in range(request.num_samples)]
