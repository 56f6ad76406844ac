"""`ChainTeacher`: prompt -> chat model -> samples, as a LangChain chain, one or more requests a KD step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from langchain_core.runnables import Runnable, RunnableLambda

from pgkd_agent.answer import CONTRACT_LINE, answer_schema
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import TeacherContextError, TeacherOutputError
from pgkd_agent.prompts import Message, PromptTemplate
from pgkd_agent.teacher.call_log import CallLog, RawReply
from pgkd_agent.teacher.calling import Caller, CallId
from pgkd_agent.teacher.factory import ChatTeacher
from pgkd_agent.teacher.parsing import ParsedReply, parse_samples
from pgkd_agent.teacher.requests import PromptRequest, plan_prompt_requests, shrunk
from pgkd_agent.types import GeneratedSample, TeacherReply, TeacherRequest, TokenUsage

logger = logging.getLogger(__name__)

OnRequest = Callable[[int, int, int], None]
"""(KD step, requests answered, requests planned)."""

NO_REPLY = RawReply("", "", TokenUsage(), 0.0)
UNPARSED = ParsedReply((), 0)


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call on its way through the chain."""

    kd_step: int
    attempt: int
    request: PromptRequest
    messages: tuple[Message, ...] = ()
    reply: RawReply = NO_REPLY
    parsed: ParsedReply = UNPARSED


class ChainTeacher:
    """A teacher that gets report and evidence in its prompt.

    Args:
        log: Where every call is recorded before its reply is parsed.
        on_request: Called after each request of a KD step.
    """

    def __init__(
        self,
        chat: ChatTeacher,
        template: PromptTemplate,
        config: PGKDConfig,
        log: CallLog | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        self._chat = chat
        self._template = template
        self._config = config
        self._caller = Caller(chat, template.hash, log or CallLog(), config.seed, config.teacher.max_attempts)
        self._on_request = on_request
        self._ever_parsed = False
        self.chain: Runnable[Turn, Turn] = (
            RunnableLambda(self._render) | RunnableLambda(self._call) | RunnableLambda(self._parse)
        )

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Send the requests of one KD step.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherOutputError: No reply of this teacher could ever be read; later, a step without a
                readable reply is an empty one.
        """
        planned = plan_prompt_requests(request, self._template, self._config)
        turns: list[Turn] = []
        for prompt_request in planned:
            turns += self._ask(request.kd_step, prompt_request)
            if self._on_request:
                self._on_request(request.kd_step, prompt_request.index + 1, len(planned))
        reply = TeacherReply(
            samples=tuple(
                GeneratedSample(sample.text, sample.label, turn.request.index)
                for turn in turns
                for sample in turn.parsed.samples
            ),
            num_requests=len(turns),
            num_malformed=sum(turn.parsed.num_malformed for turn in turns),
            shown_texts=frozenset().union(*(prompt.shown_texts for prompt in planned)),
            usage=sum((turn.reply.usage for turn in turns), TokenUsage()),
        )
        self._check(reply, turns)
        return reply

    def _ask(self, kd_step: int, request: PromptRequest) -> list[Turn]:
        """Ask, and again with the reason while nothing could be read; all turns, of which the last counts."""
        turns: list[Turn] = []
        messages: tuple[Message, ...] = ()
        for attempt in range(self._config.teacher.max_attempts):
            turn = self._ask_to_fit(Turn(kd_step, attempt, request, messages))
            turns.append(turn)
            if turn.parsed.samples:
                break
            logger.warning("KD step %d, request %d: no sample could be read", kd_step, request.index)
            messages = (*turn.messages, Message("assistant", turn.reply.text or "(empty)"), _complaint(turn))
        return turns

    def _ask_to_fit(self, turn: Turn) -> Turn:
        """Ask once; a prompt that is too long is shortened until it fits.

        Raises:
            TeacherContextError: It is too long with all rows left out.
        """
        while True:
            try:
                return self.chain.invoke(turn)
            except TeacherContextError:
                smaller = shrunk(turn.request)
                if smaller is None:
                    raise
                request, dropped = smaller
                logger.warning(
                    "KD step %d, request %d: prompt too long for the teacher, left out %s",
                    turn.kd_step,
                    request.index,
                    dropped,
                )
                turn = replace(turn, request=request, messages=())  # without the talk before, where there was any

    def _render(self, turn: Turn) -> Turn:
        if turn.messages:
            return turn
        messages = self._template.render(turn.request.values)
        if self._chat.capabilities.structured == "text":
            contract = CONTRACT_LINE.format(num_samples=turn.request.num_samples)
            last = messages[-1]
            messages[-1] = replace(last, content=f"{last.content}\n\n{contract}")
        return replace(turn, messages=tuple(messages))

    def _call(self, turn: Turn) -> Turn:
        bound = self._chat.capabilities.array_bounds
        schema = answer_schema(turn.request.labels, turn.request.num_samples if bound else None)
        call_id = CallId(turn.kd_step, turn.request.index, turn.attempt)
        return replace(turn, reply=self._caller.call(turn.messages, call_id, schema))

    def _parse(self, turn: Turn) -> Turn:
        if turn.reply.is_cut_off:
            logger.info(
                "KD step %d, request %d: reply cut off, its whole samples are kept",
                turn.kd_step,
                turn.request.index,
            )
        return replace(turn, parsed=parse_samples(turn.reply.text, turn.request.target))

    def _check(self, reply: TeacherReply, turns: Sequence[Turn]) -> None:
        self._ever_parsed = self._ever_parsed or bool(reply.samples)
        if not self._ever_parsed:
            raise TeacherOutputError(
                f"teacher {self._chat.model_id} gave no readable sample in {len(turns)} replies; expected "
                f'{{"samples": [{{"text", "label"}}]}}, the first reply began {turns[0].reply.text[:200]!r}; '
                "try another model, --prompt per_class, or --set teacher.structured=json_schema",
                tuple(turn.reply.text for turn in turns),
            )


def _complaint(turn: Turn) -> Message:
    cut = " It was cut off: write shorter texts." if turn.reply.is_cut_off else ""
    contract = CONTRACT_LINE.format(num_samples=turn.request.num_samples)
    return Message("human", f"No sample could be read from that answer.{cut} {contract}")
