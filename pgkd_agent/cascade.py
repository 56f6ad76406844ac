"""`Cascade`: the student answers what it is sure of, and something slower and better, an LLM, the rest."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig

from pgkd_agent.budget import Budget
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Taxonomy
from pgkd_agent.errors import ConfigError
from pgkd_agent.guardrails import LabelResolver
from pgkd_agent.prices import load_prices
from pgkd_agent.student.classifier import Prediction, StudentClassifier
from pgkd_agent.teacher.zero_shot import ZeroShotClassifier
from pgkd_agent.teachers import open_zero_shot
from pgkd_agent.types import TokenUsage

MAX_CONCURRENCY = 8
"""Texts that the fallback is asked about at once."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a fallback; `label` is None where its reply names no class of the taxonomy, or several."""

    label: str | None
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(frozen=True, slots=True)
class Routed:
    """
    Attributes:
        source: Whose label it is: `student` or `fallback`.
        student: What the student said.
        problem: Why the fallback, though asked, brought no label, so that the student's stands; else empty.
    """

    label: str
    source: str
    student: Prediction
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CascadeStats:
    """Since the cascade was made.

    Attributes:
        fallbacks: Texts that the fallback was asked about, those below included.
        unresolved: Of these, answers that name no class.
        failed: Of these, calls that failed, or that a cap did not allow.
        usage: Tokens of the fallback's answers, where it counts them.
    """

    texts: int = 0
    fallbacks: int = 0
    unresolved: int = 0
    failed: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def fallback_share(self) -> float:
        return self.fallbacks / self.texts if self.texts else 0.0


class Cascade(Runnable[str, Routed]):
    """Classify with the student; where its confidence is below `min_confidence`, ask the fallback.

    A fallback that fails stops nothing: the student's label stands, and `problem` says why. May be shared by threads.

    Args:
        fallback: Takes a text, answers with a label (in any spelling that resolves to one), None, or an `Answer`.
            `open_llm` makes one of a teacher.
        min_confidence: In [0, 1]; 0 never asks, 1 always.
        max_concurrency: Texts that the fallback is asked about at once.
    """

    def __init__(
        self,
        student: StudentClassifier,
        fallback: Runnable[str, str | Answer | None],
        min_confidence: float,
        max_concurrency: int = MAX_CONCURRENCY,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence is {min_confidence}; expected a probability, from 0 to 1")
        self._student = student
        self._fallback = fallback
        self._min_confidence = min_confidence
        self._max_concurrency = max_concurrency
        self._resolve = LabelResolver(student.taxonomy)
        self._stats = CascadeStats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> CascadeStats:
        return self._stats

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Routed:
        return self._call_with_config(lambda text: self.classify([text])[0], input, config)

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[Routed]:
        def classify(texts: list[str]) -> list[Exception | Routed]:
            return [*self.classify(texts)]

        return self._batch_with_config(classify, inputs, config, return_exceptions=return_exceptions)

    def classify(self, texts: Sequence[str]) -> list[Routed]:
        """In the order of the texts; the same as `batch`, without callbacks."""
        routed = [Routed(prediction.label, "student", prediction) for prediction in self._student.classify(texts)]
        unsure = [number for number, item in enumerate(routed) if item.student.confidence < self._min_confidence]
        answers = self._fallback.batch(
            [texts[number] for number in unsure], {"max_concurrency": self._max_concurrency}, return_exceptions=True
        )
        found = [answer if isinstance(answer, (Answer, Exception)) else Answer(answer) for answer in answers]
        for number, answer in zip(unsure, found, strict=True):
            routed[number] = self._route(routed[number], answer)
        self._count([routed[number] for number in unsure], found, len(texts))
        return routed

    def _route(self, item: Routed, answer: Answer | Exception) -> Routed:
        if isinstance(answer, Exception):
            return replace(item, problem=f"the fallback failed: {answer}")
        if answer.label is None:
            return replace(item, problem="the fallback named no class")
        label = self._resolve(answer.label)
        if label is None:
            return replace(item, problem=f"the fallback answered with {answer.label!r}, which is none of the classes")
        return replace(item, label=label, source="fallback")

    def _count(self, routed: Sequence[Routed], answers: Sequence[Answer | Exception], texts: int) -> None:
        failed = sum(isinstance(answer, Exception) for answer in answers)
        usage = sum((answer.usage for answer in answers if isinstance(answer, Answer)), TokenUsage())
        with self._lock:
            now = self._stats
            self._stats = CascadeStats(
                texts=now.texts + texts,
                fallbacks=now.fallbacks + len(routed),
                unresolved=now.unresolved + sum(bool(item.problem) for item in routed) - failed,
                failed=now.failed + failed,
                usage=now.usage + usage,
            )


class LLMClassifier(Runnable[str, Answer]):
    """A chat model that names the class of a text, asked with a zero-shot prompt."""

    def __init__(self, classifier: ZeroShotClassifier) -> None:
        self._classifier = classifier

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        def ask(text: str) -> Answer:
            answer = self._classifier.ask(text)
            return Answer(answer.label, answer.reply.usage)

        return self._call_with_config(ask, input, config)


@contextmanager
def open_llm(
    taxonomy: Taxonomy,
    config: PGKDConfig,
    model: BaseChatModel | None = None,
    calls: Path | None = None,
) -> Iterator[LLMClassifier]:
    """The teacher of the settings as a classifier, closed in the end: a local one has a server.

    Prompt, temperature and longest reply are those of `zero_shot`; the caps of `budget` hold, and a text that was asked
    about before is answered from the log.

    Args:
        model: Instead of the one that the settings name.
        calls: SQLite file for all prompts and replies; goes on with one that is there. None keeps it for now.
    Raises:
        ConfigError, TeacherUnavailableError: See `build_teacher`; also where it does not answer.
    """
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    with ExitStack() as stack:
        if calls is None:
            calls = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "calls.sqlite"
        classifier = stack.enter_context(open_zero_shot(model, taxonomy, config, budget, calls, stops_at_failure=False))
        classifier.check()
        yield LLMClassifier(classifier)
