"""`Annotator`: the LLM decides between the few classes that the student finds likely, beside labelled rows of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from langchain_core.runnables import Runnable

from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.asking import fan_out, until_it_fits
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
        candidates: Class ids among which to choose, likeliest first.
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
        label: A class id; None where none of the candidates was named.
        is_readable: Whether, where there is no label, it said that none fits.
        chances: Its probability of each candidate; empty where it only named one.
    """

    label: int | None
    is_readable: bool = True
    chances: tuple[float, ...] = ()
    usage: TokenUsage = field(default_factory=TokenUsage)


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
    """

    def __init__(
        self, model: GatedChatModel, template: PromptTemplate, taxonomy: Sequence[Label], task_description: str
    ) -> None:
        self.model_id = model.model_id
        self._model = model
        self._template = template
        self._taxonomy = taxonomy
        self._task_description = task_description

    def label(self, doubts: Sequence[Doubt]) -> Iterator[tuple[int, Answer]]:
        """See `Annotate`."""
        caller = self._model.caller
        return fan_out(self._ask, doubts, caller.settings.concurrency, caller.stop)

    def _ask(self, doubt: Doubt) -> Answer:
        """Ask; where the prompt is too long, with half of the labelled rows, a quarter, and so on."""
        return until_it_fits(self._ask_once, doubt, _shorter)

    def _ask_once(self, doubt: Doubt) -> Answer:
        labels = [self._taxonomy[candidate] for candidate in doubt.candidates]
        names = label_names(labels)
        resolve = LabelResolver([*labels, Label(NONE)])

        def read(reply: RawReply) -> Answer:
            label = parse_label(reply.text, resolve)
            if label not in names:
                return Answer(None, label is not None, usage=reply.usage)
            likely = chances(reply.alternatives, label, [*names, NONE])[: len(names)]
            return Answer(doubt.candidates[names.index(label)], True, likely, reply.usage)

        rows = [Example(shown(row.text), row.label) for row in doubt.rows]
        values = annotation_values(labels, self._task_description, shown(doubt.text), rows, NONE)
        asking: Runnable[Any, Any] = self._model.bind(answer_schema=zero_shot_schema([*names, NONE]), logprobs=True)
        chain: Runnable[dict[str, Any], Answer] = ChatPrompt(self._template) | asking | ReplyParser(read=read)
        return chain.invoke(values, doubt.call_id.config(self._template.hash))


def _shorter(doubt: Doubt) -> Doubt | None:
    if not doubt.rows:
        return None
    logger.info("a text to label: prompt too long for the teacher, half of its labelled rows stay")
    return replace(doubt, rows=doubt.rows[: len(doubt.rows) // 2])
