"""`ChainTeacher`: prompt | chat model | parser, as a LangChain chain, one or more requests a KD step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable

from pgkd_agent.errors import BudgetExceededError, TeacherOutputError
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.asking import until_it_fits
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.question import CallId, Question, ReplyParser
from pgkd_agent.teacher.calls.retrying import MAX_ATTEMPTS
from pgkd_agent.teacher.prompting.answer import CONTRACT_LINE, Sample
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.prompting.parsing import Resolve, parse_samples
from pgkd_agent.teacher.prompting.requests import PromptRequest, RequestPlanner, shrunk
from pgkd_agent.teacher.prompting.templates import prompt_tokens
from pgkd_agent.types import GeneratedSample, Label, TeacherReply, TeacherRequest, TokenUsage

logger = logging.getLogger(__name__)

OnRequest = Callable[[int, int, int], None]
"""(KD step, requests answered, requests planned)."""

OnPlan = Callable[[Sequence[int]], None]
"""Tokens of the prompts of the first KD step, estimated, before the first of them is sent."""

TOLERATED_SHORTFALL = 0.25
"""Share of the samples asked for that may be missing; for more, the teacher is asked again."""

LONGEST_QUOTE = 4000
"""Characters of an unreadable reply that are shown to the teacher again."""


@dataclass(frozen=True, slots=True)
class WrittenSamples:
    """What a chain gives.

    Attributes:
        samples: Those that could be read, in order.
        num_malformed: Pieces of the reply that were not a sample.
        reply: As it came, with its tokens.
    """

    samples: tuple[Sample, ...]
    num_malformed: int
    reply: RawReply


def read_samples(reply: RawReply, resolve: Resolve, target: str | None = None) -> WrittenSamples:
    """Read each sample on its own; see `parse_samples`."""
    parsed = parse_samples(reply.text, target, resolve)
    return WrittenSamples(parsed.samples, parsed.num_malformed, reply)


def sample_chain(
    model: GatedChatModel, labels: Sequence[str], num_samples: int, target: str | None = None
) -> Runnable[Any, WrittenSamples]:
    """Chat model | parser, to be put behind a `ChatPrompt` or a conversation.

    Args:
        labels: What the answer may be labelled with.
        target: Label of a sample that has none.
    """
    form = model.sample_form(labels, num_samples)
    resolve = LabelResolver([Label(name) for name in labels])
    return model.bind(**form) | ReplyParser(read=partial(read_samples, resolve=resolve, target=target))


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call about a request.

    Attributes:
        talk: The conversation that goes on; empty for a first prompt, which is rendered.
        resolve: From a written label to one of the taxonomy, or None.
    """

    call_id: CallId
    request: PromptRequest
    resolve: LabelResolver
    talk: tuple[BaseMessage, ...] = ()
    written: WrittenSamples = WrittenSamples((), 0, RawReply("", "", TokenUsage(), 0.0))

    @property
    def reply(self) -> RawReply:
        return self.written.reply

    @property
    def usable(self) -> tuple[Sample, ...]:
        """Samples with a label of the taxonomy."""
        return tuple(sample for sample in self.written.samples if self.resolve(sample.label))

    def __str__(self) -> str:
        return f"KD step {self.call_id.kd_step}, request {self.call_id.request_index}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """All turns about one request; `stopped_by` says which cap ended it early, else it is empty."""

    turns: tuple[Turn, ...]
    stopped_by: str = ""


class ChainTeacher:
    """A teacher that gets report and evidence in its prompt.

    Args:
        planner: Its template is that of the prompts.
        on_request: Called after each request of a KD step.
        on_plan: Called once, before the first request.
    """

    def __init__(
        self,
        model: GatedChatModel,
        planner: RequestPlanner,
        on_request: OnRequest | None = None,
        on_plan: OnPlan | None = None,
    ) -> None:
        self._model = model
        self._planner = planner
        self._prompt = ChatPrompt(planner.template)
        self._on_request = on_request
        self._on_plan = on_plan
        self._ever_parsed = False

    def require_room(self, request: PromptRequest) -> None:
        """
        Raises:
            BudgetExceededError: The caps leave no room for such a request.
        """
        form = self._model.sample_form(request.labels, request.num_samples)
        messages = self._prompt.format_messages(**request.values)
        self._model.caller.require_room(Question(CallId(1, request.index), messages, **form))

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Send the requests of one KD step; where a cap ends it, return what came until then.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherOutputError: No reply of this teacher could ever be read; later, a step without a
                readable reply is an empty one.
        """
        planned = self._planner.plan(request)
        self._tell_plan(planned)
        resolve = LabelResolver(request.taxonomy)
        exchanges = self._ask_all([Turn(CallId(request.kd_step, one.index), one, resolve) for one in planned])
        turns = [turn for exchange in exchanges for turn in exchange.turns]
        reply = TeacherReply(
            samples=tuple(
                GeneratedSample(sample.text, sample.label, turn.request.index)
                for turn in turns
                for sample in turn.written.samples
            ),
            num_requests=len(turns),
            num_malformed=sum(turn.written.num_malformed for turn in turns),
            num_refused=sum(turn.reply.is_refusal for turn in turns),
            shown_texts=frozenset().union(*(prompt.shown_texts for prompt in planned)),
            usage=sum((turn.reply.usage for turn in turns), TokenUsage()),
            teacher=self._model.model_id,
            stopped_by=next((exchange.stopped_by for exchange in exchanges if exchange.stopped_by), ""),
        )
        self._check(reply, turns)
        return reply

    def _tell_plan(self, planned: Sequence[PromptRequest]) -> None:
        if self._on_plan:
            self._on_plan([prompt_tokens(self._planner.template.render(prompt.values)) for prompt in planned])
            self._on_plan = None

    def _ask_all(self, firsts: Sequence[Turn]) -> list[Exchange]:
        """Exchanges in the order of their requests, several under way at once."""
        exchanges: dict[int, Exchange] = {}
        for number, exchange in self._model.caller.ask_all(self._ask, firsts):
            exchanges[number] = exchange
            if self._on_request:
                self._on_request(firsts[0].call_id.kd_step, len(exchanges), len(firsts))
        return [exchanges[number] for number in range(len(firsts))]

    def _ask(self, turn: Turn) -> Exchange:
        """Ask; ask again for samples that are missing, for what could not be read, and once after a refusal."""
        num_samples = missing = turn.request.num_samples
        turns: list[Turn] = []
        for attempt in range(MAX_ATTEMPTS):
            turn = replace(turn, call_id=replace(turn.call_id, attempt=attempt))
            try:
                turn = until_it_fits(self._ask_once, turn, _shorter)
            except BudgetExceededError as error:
                return Exchange(tuple(turns), str(error))
            turns.append(turn)
            missing -= len(turn.usable)
            is_enough = missing <= TOLERATED_SHORTFALL * num_samples
            if is_enough or sum(turn.reply.is_refusal for turn in turns) > 1:
                break
            turn = self._follow_up(turn, missing)
        return Exchange(tuple(turns))

    def _ask_once(self, turn: Turn) -> Turn:
        request = turn.request
        chain = sample_chain(self._model, request.labels, request.num_samples, request.target)
        which = turn.call_id.config(self._planner.template.hash)
        written = chain.invoke(turn.talk, which) if turn.talk else (self._prompt | chain).invoke(request.values, which)
        if written.reply.is_cut_off:
            logger.info("%s: reply cut off, its whole samples are kept", turn)
        elif written.num_malformed and written.samples:
            logger.info("%s: left out %d pieces that could not be read as samples", turn, written.num_malformed)
        return replace(turn, written=written)

    def _follow_up(self, turn: Turn, missing: int) -> Turn:
        talk = turn.talk or tuple(self._prompt.format_messages(**turn.request.values))
        if turn.reply.is_refusal:
            logger.warning("%s: the teacher declined to answer", turn)
            return replace(turn, talk=talk)
        request = turn.request.of_size(missing)
        usable = turn.usable
        if usable:
            logger.info("%s: %d samples are missing, asking for them", turn, missing)
            quote = json.dumps({"samples": [sample.model_dump() for sample in usable]}, ensure_ascii=False)
            plea = f"Write {missing} more of the same kind, all different from those above. {_form(request)}"
        else:
            problem = "no label of the taxonomy" if turn.written.samples else "no sample to read"
            logger.warning("%s: %s%s", turn, problem, f" ({turn.reply.note})" if turn.reply.note else "")
            quote, plea = turn.reply.text.strip()[:LONGEST_QUOTE] or "(empty)", _complaint(turn)
        return replace(turn, request=request, talk=(*talk, AIMessage(quote), HumanMessage(plea)))

    def _check(self, reply: TeacherReply, turns: Sequence[Turn]) -> None:
        self._ever_parsed = self._ever_parsed or bool(reply.samples)
        if self._ever_parsed or not turns:
            return
        declined = f" ({reply.num_refused} refused for their content)" if reply.num_refused else ""
        raise TeacherOutputError(
            f"teacher {self._model.model_id} gave no readable sample in {len(turns)} replies{declined}; expected "
            f'{{"samples": [{{"text", "label"}}]}}, {_beginning(turns[0].reply)}; {self._advice(turns)}',
            tuple(turn.reply.text for turn in turns),
        )

    def _advice(self, turns: Sequence[Turn]) -> str:
        """What was not tried yet."""
        settings, advice = self._model.caller.settings, ["try another model"]
        if any(turn.reply.is_cut_off or "in the field" in turn.reply.note for turn in turns):
            advice.append("have it think less, or give it room with a larger teacher.max_tokens")
        elif not any(turn.reply.note for turn in turns):
            if not self._planner.template.is_per_class:
                advice.append("the prompt per_class (teacher.prompt)")
            if settings.structured == "auto" and self._model.caller.chat.dialect.level == "text":
                advice.append("teacher.structured=json_schema")
        return ", or ".join(advice)


def _shorter(turn: Turn) -> Turn | None:
    """A first prompt again, without the talk before, where there was any."""
    smaller = shrunk(turn.request)
    if smaller is None:
        return None
    request, dropped = smaller
    logger.warning("%s: prompt too long for the teacher, left out %s", turn, dropped)
    return replace(turn, request=request, talk=())


def _beginning(reply: RawReply) -> str:
    if not reply.note:
        return f"the first reply began {reply.text[:200]!r}"
    limit = f": the limit of its length, {reply.usage.output_tokens} tokens, was reached" if reply.is_cut_off else ""
    return f"the first reply was empty ({reply.note}{limit})"


def _form(request: PromptRequest) -> str:
    return CONTRACT_LINE.format(num_samples=request.num_samples)


def _complaint(turn: Turn) -> str:
    if turn.written.samples:
        wrong = sorted({sample.label for sample in turn.written.samples})[:5]
        fault = f"None of these labels is in the list: {json.dumps(wrong, ensure_ascii=False)}."
    else:
        cut = " It was cut off: write shorter texts." if turn.reply.is_cut_off else ""
        fault = f"No sample could be read from that answer.{cut}"
    return f"{fault} {_form(turn.request)}"
