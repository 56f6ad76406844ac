"""`AgentTeacher`: a LangChain agent that queries the student through tools before it writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.tools import BaseTool

from pgkd_agent.answer import Samples
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import TeacherOutputError
from pgkd_agent.prompts import Message, PromptTemplate
from pgkd_agent.teacher.call_log import Call, CallLog, RawReply
from pgkd_agent.teacher.calling import finish_reason, token_usage
from pgkd_agent.teacher.factory import ChatTeacher
from pgkd_agent.teacher.failures import call_with_retries
from pgkd_agent.teacher.requests import plan_prompt_requests
from pgkd_agent.types import GeneratedSample, TeacherReply, TeacherRequest, TokenUsage

logger = logging.getLogger(__name__)

MAX_MODEL_CALLS = 8
"""Model calls in one KD step; a model that keeps asking tools is stopped."""

MakeTools = Callable[[TeacherRequest], Sequence[BaseTool]]


class AgentTeacher:
    """A teacher that has to ask for the report.

    Args:
        make_tools: Tools over the student as it is in a KD step.
    """

    def __init__(
        self,
        chat: ChatTeacher,
        template: PromptTemplate,
        config: PGKDConfig,
        make_tools: MakeTools,
        log: CallLog | None = None,
    ) -> None:
        self._chat = chat
        self._template = template
        self._config = config
        self._make_tools = make_tools
        self._log = log or CallLog()

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Let the agent run once.

        Raises:
            TeacherUnavailableError: The provider failed for good.
            TeacherOutputError: It ended without an answer in the form asked for.
        """
        (planned,) = plan_prompt_requests(request, self._template, self._config)
        messages = self._template.render(planned.values)
        started = time.perf_counter()
        state = call_with_retries(
            lambda: self._run(request, messages),
            self._config.teacher.max_attempts,
            f"teacher {self._chat.model_id}",
        )
        transcript: list[BaseMessage] = state["messages"]
        answers = [message for message in transcript if isinstance(message, AIMessage)]
        self._record(request.kd_step, messages, transcript, time.perf_counter() - started)
        result: Samples | None = state.get("structured_response")
        if result is None:
            raise TeacherOutputError(
                f"teacher {self._chat.model_id} ended without samples after {len(answers)} model calls; "
                "take a model that calls tools well, or --set teacher.mode=chain",
                tuple(answer.text for answer in answers),
            )
        return TeacherReply(
            samples=tuple(GeneratedSample(sample.text, sample.label) for sample in result.samples),
            num_requests=len(answers),
            shown_texts=planned.shown_texts,
            usage=sum((token_usage(answer) for answer in answers), TokenUsage()),
        )

    def _run(self, request: TeacherRequest, messages: Sequence[Message]) -> dict[str, Any]:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware
        from langchain.agents.structured_output import ToolStrategy

        agent: Any = create_agent(
            self._chat.model,
            tools=list(self._make_tools(request)),
            response_format=ToolStrategy(Samples),
            middleware=[ModelCallLimitMiddleware(run_limit=MAX_MODEL_CALLS)],
        )
        state: dict[str, Any] = agent.invoke(
            {"messages": [{"role": message.role, "content": message.content} for message in messages]}
        )
        return state

    def _record(
        self, kd_step: int, prompt: Sequence[Message], transcript: Sequence[BaseMessage], seconds: float
    ) -> None:
        """One log row per model call, with the tool results it saw; the time is of the whole run."""
        seen = list(prompt)
        index = 0
        for message in transcript[len(prompt) :]:
            if isinstance(message, AIMessage):
                reply = message.text or str(message.tool_calls)
                call = Call(kd_step, 0, index, self._chat.model_id, self._template.hash, {"mode": "agent"}, tuple(seen))
                self._log.append(call, RawReply(reply, finish_reason(message), token_usage(message), seconds))
                seen.append(Message("assistant", reply))
                index += 1
            elif isinstance(message, ToolMessage):
                seen.append(Message("human", f"[{message.name}] {message.text}"))
