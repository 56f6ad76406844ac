"""`ZeroShotClassifier`: the teacher names the label itself, without a student (the paper's Appendix A.2)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

from langchain_core.runnables import Runnable, RunnableLambda

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import BudgetExceededError, TeacherContextError
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.calling import Caller, CallId, Question
from pgkd_agent.teacher.prompting.answer import zero_shot_schema
from pgkd_agent.teacher.prompting.parsing import parse_label
from pgkd_agent.teacher.prompting.templates import Message, PromptTemplate, zero_shot_values
from pgkd_agent.text import shorten
from pgkd_agent.types import Example, Label, label_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ZeroShotAnswer:
    """`label` is None where the reply does not resolve to one label of the taxonomy."""

    label: str | None
    reply: RawReply


@dataclass(frozen=True, slots=True)
class _Question:
    kd_step: int
    row: int
    text: str
    messages: tuple[Message, ...] = ()
    every: int = 1


class ZeroShotClassifier:
    """Asks a chat model for the label of a text.

    Args:
        config: Its `zero_shot` section and `teacher.max_text_chars`.
        few_shot: Labelled rows for the prompt.
    """

    def __init__(
        self,
        caller: Caller,
        template: PromptTemplate,
        taxonomy: Sequence[Label],
        task_description: str,
        config: PGKDConfig,
        few_shot: Sequence[Example] = (),
    ) -> None:
        self._template = template
        self._taxonomy = taxonomy
        self._task_description = task_description
        self._max_chars = config.teacher.max_text_chars
        self._few_shot = [Example(shorten(row.text, self._max_chars), row.label) for row in few_shot]
        self._schema = zero_shot_schema(label_names(taxonomy))
        self._resolve = LabelResolver(taxonomy)
        self._caller = caller
        self.chain: Runnable[_Question, ZeroShotAnswer] = RunnableLambda(self._render) | RunnableLambda(self._answer)

    def check(self) -> None:
        """Find out whether the teacher answers; see `Caller.check`."""
        self._caller.check()

    def ask(self, text: str) -> ZeroShotAnswer:
        """About one text.

        Raises:
            TeacherUnavailableError, BudgetExceededError: See `Caller.call`.
        """
        return self._ask(_Question(0, 0, text))

    def classify(
        self, texts: Mapping[int, str], max_concurrency: int, kd_step: int = 0
    ) -> Iterator[tuple[int, ZeroShotAnswer]]:
        """Yield (row number, answer) as answers come in, in no particular order.

        Args:
            texts: By row number; the number also seeds the sampling, so that a part of the rows asked again
                gets the same requests.
            kd_step: The step whose samples these are, for the log.
        Raises:
            TeacherUnavailableError: The provider failed for good; requests not yet sent are dropped.
            BudgetExceededError: A cap was reached; answers to what was sent before are yielded first, and requests not
                yet sent are dropped.
        """
        over: BudgetExceededError | None = None
        with ThreadPoolExecutor(max_concurrency) as pool:
            rows: dict[Future[ZeroShotAnswer], int] = {}
            try:
                for row, text in texts.items():
                    rows[pool.submit(self._ask, _Question(kd_step, row, text))] = row
                for done in as_completed(rows):
                    if done.cancelled():
                        continue
                    try:
                        answer = done.result()
                    except BudgetExceededError as error:
                        over = over or error
                        for waiting in rows:
                            waiting.cancel()
                        continue
                    yield rows[done], answer
            except BaseException:
                self._caller.stop()  # else the others would go on asking, and paying
                pool.shutdown(cancel_futures=True)
                raise
        if over:
            raise over

    def _render(self, question: _Question) -> _Question:
        text = shorten(question.text, self._max_chars)
        shots = self._few_shot[:: question.every]
        values = zero_shot_values(self._taxonomy, self._task_description, text, shots)
        return replace(question, messages=tuple(self._template.render(values)))

    def _ask(self, question: _Question) -> ZeroShotAnswer:
        """Ask; where the prompt is too long, with half of the labelled rows, a quarter, and so on."""
        while True:
            try:
                return self.chain.invoke(question)
            except TeacherContextError:
                if question.every > len(self._few_shot):
                    raise
                question = replace(question, every=2 * question.every)
                logger.info(
                    "row %d: prompt too long for the teacher, every %dth labelled row stays",
                    question.row,
                    question.every,
                )

    def _answer(self, question: _Question) -> ZeroShotAnswer:
        reply = self._caller.call(
            Question(
                CallId(question.kd_step, question.row),
                question.messages,
                self._template.hash,
                self._schema,
                same_beginning=True,
            )
        )
        return ZeroShotAnswer(parse_label(reply.text, self._resolve), reply)
