"""`ZeroShotClassifier`: the teacher names the label itself, without a student (the paper's Appendix A.2)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import Runnable

from pgkd_agent.config import ZeroShotSettings
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.asking import until_it_fits
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.question import CallId, ReplyParser
from pgkd_agent.teacher.prompting.answer import zero_shot_schema
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.prompting.parsing import parse_label
from pgkd_agent.teacher.prompting.templates import load_prompt, zero_shot_values
from pgkd_agent.teacher.prompting.tokens import shown
from pgkd_agent.types import Example, Label, label_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ZeroShotAnswer:
    """`label` is None where the reply does not resolve to one label of the taxonomy."""

    label: str | None
    reply: RawReply


@dataclass(frozen=True, slots=True)
class _Row:
    """A text to label; every how many-th of the labelled rows stands in its prompt."""

    call_id: CallId
    text: str
    every: int = 1


class ZeroShotClassifier:
    """Asks a chat model for the label of a text.

    Args:
        few_shot: Labelled rows for the prompt.
    Raises:
        PromptError: See `load_prompt`.
    """

    def __init__(
        self,
        model: GatedChatModel,
        settings: ZeroShotSettings,
        taxonomy: Sequence[Label],
        task_description: str,
        few_shot: Sequence[Example] = (),
    ) -> None:
        self._caller = model.caller
        self._taxonomy = taxonomy
        self._task_description = task_description
        self._few_shot = [Example(shown(row.text), row.label) for row in few_shot]
        self._resolve = LabelResolver(taxonomy)
        template = load_prompt(settings.prompt, "zero_shot", model.caller.settings.prompt_folder)
        self._prompt_hash = template.hash
        asking = model.bind(answer_schema=zero_shot_schema(label_names(taxonomy)), same_beginning=True)
        self.chain: Runnable[dict[str, Any], ZeroShotAnswer] = (
            ChatPrompt(template) | asking | ReplyParser(read=self._read)
        )

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
        for place, answer in self._caller.ask_all(self._ask, rows):
            yield rows[place].call_id.request_index, answer

    def _ask(self, row: _Row) -> ZeroShotAnswer:
        """Ask; where the prompt is too long, with half of the labelled rows, a quarter, and so on."""
        return until_it_fits(self._ask_once, row, self._shorter)

    def _ask_once(self, row: _Row) -> ZeroShotAnswer:
        text, shots = shown(row.text), self._few_shot[:: row.every]
        values = zero_shot_values(self._taxonomy, self._task_description, text, shots)
        return self.chain.invoke(values, row.call_id.config(self._prompt_hash))

    def _shorter(self, row: _Row) -> _Row | None:
        if row.every > len(self._few_shot):
            return None
        fewer = replace(row, every=2 * row.every)
        number = row.call_id.request_index
        logger.info("row %d: prompt too long for the teacher, every %dth labelled row stays", number, fewer.every)
        return fewer

    def _read(self, reply: RawReply) -> ZeroShotAnswer:
        return ZeroShotAnswer(parse_label(reply.text, self._resolve), reply)
