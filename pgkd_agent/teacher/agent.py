"""`AgentTeacher`: a LangChain agent that queries the student through tools before it writes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ModelCallLimitMiddleware,
    ModelRequest,
    ModelResponse,
    ToolCallLimitMiddleware,
    hook_config,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool

from pgkd_agent.errors import BudgetExceededError, TeacherContextError, TeacherRejectedError
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.teacher.calls.gated import GatedChatModel
from pgkd_agent.teacher.calls.question import CallId, reply_of
from pgkd_agent.teacher.ensemble import with_calls_of
from pgkd_agent.teacher.prompting.answer import answer_schema
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.prompting.parsing import ParsedReply, parse_samples
from pgkd_agent.teacher.prompting.requests import RequestPlanner
from pgkd_agent.teacher.providers.dialect import reply_text
from pgkd_agent.types import GeneratedSample, TeacherReply, TeacherRequest, TokenUsage, label_names

logger = logging.getLogger(__name__)

MAX_TOOL_CALLS = 12
"""Tool calls of an agent in one KD step; then it has to write."""

ANSWER = "Samples"
"""The tool that takes an agent's answer."""

ANSWER_CALLS = 4
"""Model calls beyond those for tools: to write, and to mend what was written."""

STEPS_IN_WORDS = 2
"""KD steps in a row in which a model neither calls a tool nor writes samples, after which it is asked without tools."""

MakeTools = Callable[[TeacherRequest], Sequence[BaseTool]]

OnTranscript = Callable[[int, list[dict[str, Any]]], None]
"""(KD step, messages of the conversation as plain mappings)."""


class Conversation(AgentMiddleware):
    """Numbers the model calls of one KD step, for their identity, and keeps what was said and what it took.

    Attributes:
        transcript: Up to the last answer.
        num_refused: Calls in which model or filter declined to answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transcript: list[BaseMessage] = []
        self.num_calls = 0
        self.num_refused = 0
        self.usage = TokenUsage()

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Call the model as the next attempt of the conversation's one request."""
        numbered = request.override(model_settings={**request.model_settings, "attempt": self.num_calls})
        response = handler(numbered)
        answer = response.result[0]
        reply = reply_of(answer)
        self.num_calls += 1
        self.num_refused += reply.is_refusal
        self.usage += reply.usage
        self.transcript = [*request.messages, answer]
        return response

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Tell the model of calls whose arguments are no JSON; samples among them are read by `AgentTeacher`."""
        answer = state["messages"][-1]
        if not isinstance(answer, AIMessage):  # what stands after an answer in due form
            return None
        broken = answer.invalid_tool_calls
        if not broken or any(call["name"] == ANSWER for call in broken):
            return None
        fault = "The arguments are no JSON object; call it again."
        told = [ToolMessage(fault, tool_call_id=call["id"] or "", name=call["name"]) for call in broken]
        return {"messages": told, **({} if answer.tool_calls else {"jump_to": "model"})}


class AgentTeacher:
    """A teacher that looks up how the student does.

    Args:
        planner: Its template is that of the first messages.
        make_tools: Tools over the student as it is in a KD step.
        fallback: Writes where the model cannot: for this step, or for good where it takes no tools.
    """

    def __init__(
        self,
        model: GatedChatModel,
        planner: RequestPlanner,
        make_tools: MakeTools,
        fallback: Teacher,
        on_transcript: OnTranscript | None = None,
    ) -> None:
        self._model = model
        self._planner = planner
        self._make_tools = make_tools
        self._fallback = fallback
        self._on_transcript = on_transcript
        self._takes_tools = True
        self._steps_in_words = 0

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Let the agent run once; where it ends without samples, ask without tools.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherOutputError: Nothing readable came from the fallback either; see `ChainTeacher`.
        """
        if not self._takes_tools:
            return self._fallback.write(request)
        (planned,) = self._planner.plan(request)
        talk = Conversation()
        stopped_by, problem = "", ""
        parsed = ParsedReply((), 0)
        try:
            parsed = self._run(talk, request, ChatPrompt(self._planner.template).format_messages(**planned.values))
        except BudgetExceededError as error:
            stopped_by = str(error)
        except NotImplementedError:
            self._takes_tools = False
            problem = "its LangChain class takes no tools"
        except TeacherContextError:
            problem = "the conversation grew longer than its context"
        except TeacherRejectedError as error:
            self._takes_tools = False
            problem = f"it rejects calls with tools ({error})"
        if self._on_transcript:
            self._on_transcript(request.kd_step, [_plain(message) for message in talk.transcript])
        reply = TeacherReply(
            samples=tuple(GeneratedSample(sample.text, sample.label) for sample in parsed.samples),
            num_requests=talk.num_calls,
            num_malformed=parsed.num_malformed,
            num_refused=talk.num_refused,
            shown_texts=planned.shown_texts,
            usage=talk.usage,
            teacher=self._model.model_id,
            stopped_by=stopped_by,
        )
        if reply.samples or stopped_by:
            self._steps_in_words = 0
            return reply
        answers = [message for message in talk.transcript if isinstance(message, AIMessage)]
        if not problem and reply.num_refused:
            problem = "it declined to answer"
        elif not problem and not any(answer.tool_calls for answer in answers):
            self._steps_in_words += 1
            self._takes_tools = self._steps_in_words < STEPS_IN_WORDS
            problem = "it called no tool"
        return self._fall_back(request, reply, problem or "it ended without samples")

    def _fall_back(self, request: TeacherRequest, reply: TeacherReply, problem: str) -> TeacherReply:
        how_long = "for this step" if self._takes_tools else "from now on"
        logger.warning("KD step %d: no agent %s: %s; asking without tools", request.kd_step, how_long, problem)
        return with_calls_of(self._fallback.write(request), reply)

    def _run(self, talk: Conversation, request: TeacherRequest, messages: Sequence[BaseMessage]) -> ParsedReply:
        # A schema instead of a pydantic model: samples are checked one by one, so that a bad one costs no other.
        schema = {
            "title": ANSWER,
            "description": "The new training samples.",
            **answer_schema(label_names(request.taxonomy)),
        }
        limits: list[Any] = [
            ModelCallLimitMiddleware(run_limit=MAX_TOOL_CALLS + ANSWER_CALLS),
            ToolCallLimitMiddleware(run_limit=MAX_TOOL_CALLS),
        ]
        form: Any = ToolStrategy(schema)
        tools = list(self._make_tools(request))
        agent: Any = create_agent(self._model, tools=tools, response_format=form, middleware=[talk, *limits])
        state = agent.invoke({"messages": [*messages]}, CallId(request.kd_step).config(self._planner.template.hash))
        resolve = LabelResolver(request.taxonomy)
        if (answer := state.get("structured_response")) is not None:
            return parse_samples(json.dumps(answer), resolve=resolve)
        # Some models write the answer as text, and one that is cut off calls the tool with half of it.
        last = next(message for message in reversed(talk.transcript) if isinstance(message, AIMessage))
        return parse_samples(reply_text(last), resolve=resolve)


def _plain(message: BaseMessage) -> dict[str, Any]:
    """For people to read."""
    plain: dict[str, Any] = {"role": message.type, "content": message.text}
    if isinstance(message, AIMessage) and message.tool_calls:
        plain["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        plain["tool"] = message.name
    return plain
