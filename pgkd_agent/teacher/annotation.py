"""`Annotator`: the LLM labels a text, told the few classes that the student finds likely, and labelled rows of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from langchain_core.runnables import Runnable

from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.loop.trust import Word
from pgkd_agent.teacher.calls.asking import until_it_fits
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.question import CallId, ReplyParser
from pgkd_agent.teacher.prompting.answer import NONE, zero_shot_schema
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.prompting.likelihood import chances
from pgkd_agent.teacher.prompting.parsing import parse_label
from pgkd_agent.teacher.prompting.templates import PromptTemplate, annotation_values
from pgkd_agent.teacher.prompting.tokens import shown
from pgkd_agent.types import Example, Label, TokenUsage, label_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A text to label.

    Attributes:
        call_id: Of the call about it.
        candidates: Class ids that the student finds likely, likeliest first.
        rows: Labelled rows to compare with.
    """

    call_id: CallId
    text: str
    candidates: tuple[int, ...]
    rows: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the LLM says about a text.

    Attributes:
        word: None where it named no class.
        is_readable: Whether, where there is no word, it said that no class fits.
        seconds: Of the call, in whichever run it was made.
    """

    word: Word | None
    is_readable: bool = True
    usage: TokenUsage = field(default_factory=TokenUsage)
    seconds: float = 0.0


class Annotate(Protocol):
    """What labels texts: an LLM, or what stands in for one."""

    model_id: str

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        """Yield (number of the doubt from 0, answer) as answers come in, in no particular order.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            BudgetExceededError: A cap was reached; answers to what was sent before are yielded first.
        """
        ...


class Annotator:
    """Asks a chat model, a text a call.

    Args:
        model: Set up to name labels (`GatedChatModel.for_labels`).
        template: One that uses `taxonomy` has it choose among all classes, any other among the candidates.
    """

    def __init__(
        self, model: GatedChatModel, template: PromptTemplate, taxonomy: Sequence[Label], task_description: str
    ) -> None:
        self.model_id = model.model_id
        self._model = model
        self._template = template
        self._taxonomy = taxonomy
        self._task_description = task_description
        self._names_any_class = "taxonomy" in template.variables

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        """See `Annotate`."""
        return self._model.caller.ask_all(self._ask, doubts)

    def _ask(self, doubt: Doubt) -> Answer:
        """Ask; where the prompt is too long, with half of the labelled rows, a quarter, and so on."""
        return until_it_fits(self._ask_once, doubt, _shorter)

    def _ask_once(self, doubt: Doubt) -> Answer:
        chosen_from = tuple(range(len(self._taxonomy))) if self._names_any_class else doubt.candidates
        labels = [self._taxonomy[number] for number in chosen_from]
        names = label_names(labels)
        resolve = LabelResolver([*labels, Label(NONE)])

        def read(reply: RawReply) -> Answer:
            label = parse_label(reply.text, resolve)
            if label not in names:
                return Answer(None, label is not None, reply.usage, reply.seconds)
            likely = chances(reply.alternatives, label, [*names, NONE])[: len(names)]
            word = Word(chosen_from[names.index(label)], chosen_from, likely)
            return Answer(word, True, reply.usage, reply.seconds)

        rows = [Example(shown(row.text), row.label) for row in doubt.rows]
        candidates = [self._taxonomy[candidate] for candidate in doubt.candidates]
        values = annotation_values(
            self._taxonomy, candidates, self._task_description, shown(doubt.text), rows, other=NONE
        )
        asking: Runnable[Any, Any] = self._model.bind(answer_schema=zero_shot_schema([*names, NONE]), logprobs=True)
        chain: Runnable[dict[str, Any], Answer] = ChatPrompt(self._template) | asking | ReplyParser(read=read)
        return chain.invoke(values, doubt.call_id.config(self._template.hash))


def _shorter(doubt: Doubt) -> Doubt | None:
    if not doubt.rows:
        return None
    logger.info("a text to label: prompt too long for the teacher, half of its labelled rows stay")
    return replace(doubt, rows=doubt.rows[: len(doubt.rows) // 2])
