"""`ChainTeacher`: prompt -> chat model -> samples, as a LangChain chain, one or more requests a KD step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

from langchain_core.runnables import Runnable, RunnableLambda

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import BudgetExceededError, TeacherContextError, TeacherOutputError
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.teacher.calls.call_log import RawReply
from pgkd_agent.teacher.calls.calling import Caller, CallId, Question
from pgkd_agent.teacher.prompting.answer import CONTRACT_LINE, Sample, answer_schema
from pgkd_agent.teacher.prompting.parsing import ParsedReply, parse_samples
from pgkd_agent.teacher.prompting.requests import PromptRequest, plan_prompt_requests, shrunk
from pgkd_agent.teacher.prompting.templates import Message, PromptTemplate, prompt_tokens
from pgkd_agent.types import GeneratedSample, TeacherReply, TeacherRequest, TokenUsage

logger = logging.getLogger(__name__)

OnRequest = Callable[[int, int, int], None]
"""(KD step, requests answered, requests planned)."""

OnPlan = Callable[[Sequence[int]], None]
"""Tokens of the prompts of the first KD step, estimated, before the first of them is sent."""

NO_REPLY = RawReply("", "", TokenUsage(), 0.0)
UNPARSED = ParsedReply((), 0)

CONCURRENCY = 4
"""Requests under way at once to a teacher that is not local."""

TOLERATED_SHORTFALL = 0.25
"""Share of the samples asked for that may be missing; for more, the teacher is asked again."""

LONGEST_QUOTE = 4000
"""Characters of an unreadable reply that are shown to the teacher again."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One model call on its way through the chain.

    Attributes:
        resolve: From a written label to one of the taxonomy, or None.
    """

    kd_step: int
    attempt: int
    request: PromptRequest
    resolve: LabelResolver
    messages: tuple[Message, ...] = ()
    reply: RawReply = NO_REPLY
    parsed: ParsedReply = UNPARSED

    @property
    def usable(self) -> tuple[Sample, ...]:
        """Samples with a label of the taxonomy."""
        return tuple(sample for sample in self.parsed.samples if self.resolve(sample.label))


@dataclass(frozen=True, slots=True)
class Exchange:
    """All turns about one request; `stopped_by` says which cap ended it early, else it is empty."""

    turns: tuple[Turn, ...]
    stopped_by: str = ""


class ChainTeacher:
    """A teacher that gets report and evidence in its prompt.

    Args:
        on_request: Called after each request of a KD step.
        on_plan: Called once, before the first request.
    """

    def __init__(
        self,
        caller: Caller,
        template: PromptTemplate,
        config: PGKDConfig,
        on_request: OnRequest | None = None,
        on_plan: OnPlan | None = None,
    ) -> None:
        self._caller = caller
        self._template = template
        self._config = config
        self._on_request = on_request
        self._on_plan = on_plan
        self._ever_parsed = False
        self.chain: Runnable[Turn, Turn] = (
            RunnableLambda(self._render) | RunnableLambda(self._call) | RunnableLambda(self._parse)
        )

    def require_room(self, request: PromptRequest) -> None:
        """
        Raises:
            BudgetExceededError: The caps leave no room for such a request.
        """
        messages = tuple(self._template.render(request.values))
        self._caller.require_room(self._question(CallId(1, request.index), request, messages))

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Send the requests of one KD step; where a cap ends it, return what came until then.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherOutputError: No reply of this teacher could ever be read; later, a step without a
                readable reply is an empty one.
        """
        planned = plan_prompt_requests(request, self._template, self._config)
        self._tell_plan(planned)
        resolve = LabelResolver(request.taxonomy)
        exchanges = self._ask_all([Turn(request.kd_step, 0, prompt, resolve) for prompt in planned])
        turns = [turn for exchange in exchanges for turn in exchange.turns]
        reply = TeacherReply(
            samples=tuple(
                GeneratedSample(sample.text, sample.label, turn.request.index)
                for turn in turns
                for sample in turn.parsed.samples
            ),
            num_requests=len(turns),
            num_malformed=sum(turn.parsed.num_malformed for turn in turns),
            num_refused=sum(turn.reply.is_refusal for turn in turns),
            shown_texts=frozenset().union(*(prompt.shown_texts for prompt in planned)),
            usage=sum((turn.reply.usage for turn in turns), TokenUsage()),
            teacher=self._caller.chat.model_id,
            stopped_by=next((exchange.stopped_by for exchange in exchanges if exchange.stopped_by), ""),
        )
        self._check(reply, turns)
        return reply

    def _tell_plan(self, planned: Sequence[PromptRequest]) -> None:
        if self._on_plan:
            self._on_plan([prompt_tokens(self._template.render(prompt.values)) for prompt in planned])
            self._on_plan = None

    def _ask_all(self, firsts: Sequence[Turn]) -> list[Exchange]:
        """Exchanges in the order of their requests, several under way at once."""
        settings = self._caller.settings
        workers = settings.max_concurrency or (1 if settings.is_local else CONCURRENCY)
        with ThreadPoolExecutor(workers) as pool:
            exchanges: list[Future[Exchange]] = []
            try:
                for turn in firsts:
                    exchanges.append(pool.submit(self._ask, turn))
                for answered, done in enumerate(as_completed(exchanges), 1):
                    done.result()
                    if self._on_request:
                        self._on_request(firsts[0].kd_step, answered, len(firsts))
            except BaseException:
                self._caller.stop()  # else the others would go on asking, and paying
                pool.shutdown(cancel_futures=True)
                raise
        return [exchange.result() for exchange in exchanges]

    def _ask(self, turn: Turn) -> Exchange:
        """Ask; ask again for samples that are missing, for what could not be read, and once after a refusal."""
        num_samples = missing = turn.request.num_samples
        turns: list[Turn] = []
        for attempt in range(self._caller.settings.max_attempts):
            try:
                turn = self._ask_to_fit(replace(turn, attempt=attempt))
            except BudgetExceededError as error:
                return Exchange(tuple(turns), str(error))
            turns.append(turn)
            missing -= len(turn.usable)
            is_enough = missing <= TOLERATED_SHORTFALL * num_samples
            if is_enough or sum(turn.reply.is_refusal for turn in turns) > 1:
                break
            turn = self._follow_up(turn, missing)
        return Exchange(tuple(turns))

    def _follow_up(self, turn: Turn, missing: int) -> Turn:
        what = f"KD step {turn.kd_step}, request {turn.request.index}"
        if turn.reply.is_refusal:
            logger.warning("%s: the teacher declined to answer", what)
            return turn
        request = turn.request.of_size(missing)
        usable = turn.usable
        if usable:
            logger.info("%s: %d samples are missing, asking for them", what, missing)
            quote = json.dumps({"samples": [sample.model_dump() for sample in usable]}, ensure_ascii=False)
            plea = f"Write {missing} more of the same kind, all different from those above. {_form(request)}"
        else:
            logger.warning("%s: %s", what, "no label of the taxonomy" if turn.parsed.samples else "no sample to read")
            quote, plea = turn.reply.text.strip()[:LONGEST_QUOTE] or "(empty)", _complaint(turn)
        talk = (*turn.messages, Message("assistant", quote), Message("human", plea))
        return replace(turn, request=request, messages=talk)

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
        return turn if turn.messages else replace(turn, messages=tuple(self._template.render(turn.request.values)))

    def _call(self, turn: Turn) -> Turn:
        call_id = CallId(turn.kd_step, turn.request.index, turn.attempt)
        return replace(turn, reply=self._caller.call(self._question(call_id, turn.request, turn.messages)))

    def _question(self, call_id: CallId, request: PromptRequest, messages: tuple[Message, ...]) -> Question:
        bound = self._caller.chat.dialect.capabilities.array_bounds
        schema = answer_schema(request.labels, request.num_samples if bound else None)
        return Question(call_id, messages, self._template.hash, schema, _form(request))

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
        if self._ever_parsed or not turns:
            return
        declined = f" ({reply.num_refused} refused for their content)" if reply.num_refused else ""
        raise TeacherOutputError(
            f"teacher {self._caller.chat.model_id} gave no readable sample in {len(turns)} replies{declined}; expected "
            f'{{"samples": [{{"text", "label"}}]}}, the first reply began {turns[0].reply.text[:200]!r}; '
            "try another model, --prompt per_class, or --set teacher.structured=json_schema",
            tuple(turn.reply.text for turn in turns),
        )


def _form(request: PromptRequest) -> str:
    return CONTRACT_LINE.format(num_samples=request.num_samples)


def _complaint(turn: Turn) -> str:
    if turn.parsed.samples:
        wrong = sorted({sample.label for sample in turn.parsed.samples})[:5]
        fault = f"None of these labels is in the list: {json.dumps(wrong, ensure_ascii=False)}."
    else:
        cut = " It was cut off: write shorter texts." if turn.reply.is_cut_off else ""
        fault = f"No sample could be read from that answer.{cut}"
    return f"{fault} {_form(turn.request)}"
