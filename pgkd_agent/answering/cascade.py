"""`Cascade`: the student answers what it is sure of, and something slower and better, an LLM, the rest."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForChainRun
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Taxonomy
from pgkd_agent.errors import (
    BudgetExceededError,
    ConfigError,
    StorageError,
    TeacherContextError,
    TeacherRejectedError,
    TeacherUnavailableError,
)
from pgkd_agent.files import lock_beside
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.student.classifier import Prediction, StudentClassifier
from pgkd_agent.student.texts import answered, only_texts
from pgkd_agent.teacher.calls.budget import Budget, Spent
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.standalone import open_zero_shot
from pgkd_agent.teacher.zero_shot import ZeroShotClassifier
from pgkd_agent.types import TokenUsage

MAX_CONCURRENCY = 8
"""Texts that the fallback is asked about at once."""
FAILURES_IN_A_ROW, PAUSE_SECONDS = 5, 60.0
"""After so many the fallback is left alone for so long."""
NOT_ITS_FAULT = (TeacherContextError, TeacherRejectedError, BudgetExceededError)
"""A text that is too long or refused, or a cap: says nothing of the provider."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a fallback; `label` is None where its reply names no class of the taxonomy, or several."""

    label: str | None
    usage: TokenUsage = field(default_factory=TokenUsage)


@dataclass(frozen=True, slots=True)
class Routed:
    """What a cascade says of a text.

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
    """Of texts, since the cascade was made.

    Attributes:
        fallbacks: Those that the student was not sure of, the two below included.
        unresolved: Of these, those whose answer names no class.
        failed: Of these, those that could not be asked about: the call failed, a cap did not allow it, or the fallback
            was left alone after failures.
        usage: Tokens as the answers report them, where they do; equal texts of a batch share one.
    """

    texts: int = 0
    fallbacks: int = 0
    unresolved: int = 0
    failed: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def fallback_share(self) -> float:
        """The share of texts that the fallback was asked about, in [0, 1]; 0 of none."""
        return self.fallbacks / self.texts if self.texts else 0.0


class Cascade(Runnable[str, Routed]):
    """Classify with the student; where its confidence is below `min_confidence`, ask the fallback.

    A fallback that fails stops nothing: the student's label stands, and `problem` says why. After `FAILURES_IN_A_ROW`
    that are its provider's it is not asked for `PAUSE_SECONDS`. How long a call may take is `teacher.timeout`. May
    be shared by threads.

    Args:
        fallback: Takes a text, answers with a label (in any spelling that resolves to one), None, or something with a
            `label`, such as an `Answer` or the `Prediction` of a larger student. `open_llm` makes one of a teacher.
        min_confidence: In [0, 1]; 0 never asks, 1 always.
        max_concurrency: Texts that the fallback is asked about at once; give more to a larger student, whose batches
            they are. None takes what `teacher.max_concurrency` says for `open_llm`, else `MAX_CONCURRENCY`.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        student: StudentClassifier,
        fallback: Runnable[str, Any],
        min_confidence: float,
        max_concurrency: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence is {min_confidence}; expected a probability, from 0 to 1")
        self._student = student
        at_once = max_concurrency or int(getattr(fallback, "max_concurrency", MAX_CONCURRENCY))
        self._fallback = _Guarded(fallback, at_once, clock)
        self._min_confidence = min_confidence
        self._resolve = LabelResolver(student.taxonomy)
        self._stats = CascadeStats()
        self._lock = threading.Lock()

    @property
    def stats(self) -> CascadeStats:
        """Counts and tokens since the cascade was made."""
        return self._stats

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Routed:
        return self.batch([input], config)[0]

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any | None,
    ) -> list[Routed]:
        def classify(
            inputs: list[str], run_manager: list[CallbackManagerForChainRun], config: list[RunnableConfig]
        ) -> list[Exception | Routed]:
            return answered(inputs, lambda texts: self._classify([*texts.values()], [config[each] for each in texts]))

        return self._batch_with_config(classify, inputs, config, return_exceptions=return_exceptions)

    def classify(self, texts: Sequence[str]) -> list[Routed]:
        """In the order of the texts; the same as `batch`, without callbacks."""
        return self._classify(only_texts(texts), get_config_list(None, len(texts)))

    def _classify(self, texts: Sequence[str], configs: Sequence[RunnableConfig]) -> list[Routed]:
        routed = [Routed(prediction.label, "student", prediction) for prediction in self._student.classify(texts)]
        unsure = [number for number, item in enumerate(routed) if self._is_unsure(item.student)]
        asking = {texts[number]: configs[number] for number in unsure}
        answers = dict(zip(asking, self._fallback.batch([*asking], [*asking.values()]), strict=True))
        for number in unsure:
            routed[number] = self._route(routed[number], answers[texts[number]])
        self._count(len(texts), [(routed[number], answers[texts[number]]) for number in unsure], answers.values())
        return routed

    def _is_unsure(self, prediction: Prediction) -> bool:
        """A confidence may come out as 1 exactly."""
        return prediction.confidence < self._min_confidence or self._min_confidence == 1

    def _route(self, item: Routed, answer: Any) -> Routed:
        if isinstance(answer, Exception):
            return replace(item, problem=f"the fallback failed: {answer}")
        written = getattr(answer, "label", answer)
        if written is None:
            return replace(item, problem="the fallback named no class")
        if not isinstance(written, str):
            return replace(item, problem=f"the fallback answered with a {type(answer).__name__}, expected a label")
        label = self._resolve(written)
        if label is None:
            return replace(item, problem=f"the fallback answered with {written!r}, which is none of the classes")
        return replace(item, label=label, source="fallback")

    def _count(self, texts: int, routed: Sequence[tuple[Routed, Any]], answers: Iterable[Any]) -> None:
        failed = sum(isinstance(answer, Exception) for _, answer in routed)
        usage = sum((answer.usage for answer in answers if isinstance(answer, Answer)), TokenUsage())
        with self._lock:
            now = self._stats
            self._stats = CascadeStats(
                texts=now.texts + texts,
                fallbacks=now.fallbacks + len(routed),
                unresolved=now.unresolved + sum(bool(item.problem) for item, _ in routed) - failed,
                failed=now.failed + failed,
                usage=now.usage + usage,
            )


class _Guarded:
    """A fallback that is left alone for a while after failures in a row that are the provider's."""

    def __init__(self, fallback: Runnable[str, Any], at_once: int, clock: Callable[[], float]) -> None:
        self._fallback = fallback
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._alone_until = 0.0
        self._last = ""

    def batch(self, texts: Sequence[str], configs: Sequence[RunnableConfig]) -> list[Any]:
        """Answers and exceptions; some at a time, so that one that has just failed is soon left alone.

        Raises:
            StorageError: What was said cannot be kept.
        """
        answers: list[Any] = []
        for start in range(0, len(texts), self._at_once):
            some = [*texts[start : start + self._at_once]]
            answers += self._alone(len(some)) or self._ask(some, configs[start : start + self._at_once])
        return answers

    def _alone(self, texts: int) -> list[Exception]:
        with self._lock:
            if self._failures < FAILURES_IN_A_ROW or self._clock() >= self._alone_until:
                return []
            why = f"left alone after {self._failures} failures in a row, the last: {self._last}"
        return [TeacherUnavailableError(why)] * texts

    def _ask(self, texts: list[str], configs: Sequence[RunnableConfig]) -> list[Any]:
        own = [RunnableConfig({**config, "max_concurrency": self._at_once}) for config in configs]
        answers = self._fallback.batch(texts, own, return_exceptions=True)
        with self._lock:
            for answer in answers:
                if isinstance(answer, StorageError):
                    raise answer
                if not isinstance(answer, Exception):
                    self._failures = 0
                elif not isinstance(answer, NOT_ITS_FAULT):
                    self._failures += 1
                    self._alone_until = self._clock() + PAUSE_SECONDS
                    self._last = str(answer)
        return answers


class LLMClassifier(Runnable[str, Answer]):
    """A chat model that names the class of a text, asked with a zero-shot prompt."""

    def __init__(self, classifier: ZeroShotClassifier, budget: Budget, max_concurrency: int) -> None:
        self._classifier = classifier
        self._budget = budget
        self._before = budget.spent
        self.max_concurrency = max_concurrency

    @property
    def spent(self) -> Spent:
        """Since it was opened, failed calls and the check included; an answer from the log costs nothing."""
        now, before = self._budget.spent, self._before
        return Spent(now.calls - before.calls, now.tokens - before.tokens, now.cost - before.cost)

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

    The prompt is that of `zero_shot`; the caps of `budget` hold, and a text that was asked
    about before is answered from the log.

    Args:
        model: Instead of the one that the settings name.
        calls: SQLite file for all prompts and replies; goes on with one that is there, whose calls count against the
            caps. None keeps none.

    Raises:
        StorageError: Another process works on that file, or it cannot be opened.
        ConfigError, TeacherUnavailableError: See `build_teacher`; also where it does not answer.
    """
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    with ExitStack() as stack:
        if calls is None:
            calls = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "calls.sqlite"
        else:
            stack.callback(lock_beside(calls).release)
        classifier = stack.enter_context(open_zero_shot(model, taxonomy, config, budget, calls, stops_at_failure=False))
        llm = LLMClassifier(classifier, budget, config.teacher.concurrency)
        classifier.check()
        yield llm
