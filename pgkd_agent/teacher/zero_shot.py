"""`ZeroShotClassifier`: the teacher names the label itself, without a student (the paper's Appendix A.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.output_parsers.base import BaseGenerationOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable

from pgkd_agent.config import PGKDConfig
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.asking import fan_out, until_it_fits
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.question import CallId, reply_of
from pgkd_agent.teacher.prompting.answer import zero_shot_schema
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.prompting.parsing import parse_label
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt, zero_shot_values
from pgkd_agent.text import shorten
from pgkd_agent.types import Example, Label, label_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ZeroShotAnswer:
    """`label` is None where the reply does not resolve to one label of the taxonomy."""

    label: str | None
    reply: RawReply


class LabelParser(BaseGenerationOutputParser[ZeroShotAnswer]):
    """Reads the one label in a chat model's answer; see `parse_label`.

    Attributes:
        resolve: From a written label to one of the taxonomy, or None.
    """

    resolve: Callable[[str], str | None]

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> ZeroShotAnswer:
        (generation,) = result
        if not isinstance(generation, ChatGeneration):
            raise TypeError("found a text, expected the answer of a chat model")
        reply = reply_of(generation.message)
        return ZeroShotAnswer(parse_label(reply.text, self.resolve), reply)


@dataclass(frozen=True, slots=True)
class _Row:
    """A text to label; every how many-th of the labelled rows stands in its prompt."""

    call_id: CallId
    text: str
    every: int = 1


class ZeroShotClassifier:
    """Asks a chat model for the label of a text.

    Args:
        max_chars: Longest part of a text that is shown.
        few_shot: Labelled rows for the prompt.
    """

    def __init__(
        self,
        model: GatedChatModel,
        template: PromptTemplate,
        taxonomy: Sequence[Label],
        task_description: str,
        max_chars: int,
        few_shot: Sequence[Example] = (),
    ) -> None:
        self._caller = model.caller
        self._prompt_hash = template.hash
        self._taxonomy = taxonomy
        self._task_description = task_description
        self._max_chars = max_chars
        self._few_shot = [Example(shorten(row.text, max_chars), row.label) for row in few_shot]
        asking = model.bind(answer_schema=zero_shot_schema(label_names(taxonomy)), same_beginning=True)
        self.chain: Runnable[dict[str, Any], ZeroShotAnswer] = (
            ChatPrompt(template) | asking | LabelParser(resolve=LabelResolver(taxonomy))
        )

    @classmethod
    def of(
        cls,
        model: GatedChatModel,
        taxonomy: Sequence[Label],
        task_description: str,
        config: PGKDConfig,
        few_shot: Sequence[Example] = (),
    ) -> ZeroShotClassifier:
        """With the prompt of `zero_shot`.

        Raises:
            PromptError: See `load_prompt`.
        """
        template = load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder)
        return cls(model, template, taxonomy, task_description, config.teacher.max_text_chars, few_shot)

    def check(self) -> None:
        """Find out whether the teacher answers; see `Caller.check`."""
        self._caller.check()

    def ask(self, text: str) -> ZeroShotAnswer:
        """About one text.

        Raises:
            TeacherUnavailableError, BudgetExceededError: See `Caller.call`.
        """
        return self._ask(_Row(CallId(), text))

    def classify(self, texts: Mapping[int, str], kd_step: int = 0) -> Iterator[tuple[int, ZeroShotAnswer]]:
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
        rows = [_Row(CallId(kd_step, number), text) for number, text in texts.items()]
        for place, answer in fan_out(self._ask, rows, self._caller.settings.concurrency, self._caller.stop):
            yield rows[place].call_id.request_index, answer

    def _ask(self, row: _Row) -> ZeroShotAnswer:
        """Ask; where the prompt is too long, with half of the labelled rows, a quarter, and so on."""
        return until_it_fits(self._ask_once, row, self._shorter)

    def _ask_once(self, row: _Row) -> ZeroShotAnswer:
        text, shots = shorten(row.text, self._max_chars), self._few_shot[:: row.every]
        values = zero_shot_values(self._taxonomy, self._task_description, text, shots)
        return self.chain.invoke(values, row.call_id.config(self._prompt_hash))

    def _shorter(self, row: _Row) -> _Row | None:
        if row.every > len(self._few_shot):
            return None
        fewer = replace(row, every=2 * row.every)
        number = row.call_id.request_index
        logger.info("row %d: prompt too long for the teacher, every %dth labelled row stays", number, fewer.every)
        return fewer
