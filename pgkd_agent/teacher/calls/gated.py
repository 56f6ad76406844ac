"""`GatedChatModel`: a chat model whose calls go through a `Caller`, for agents, which call the model themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from pgkd_agent.teacher.calls.call_log import Call
from pgkd_agent.teacher.calls.calling import Caller, CallId, Settings
from pgkd_agent.types import TokenUsage


class GatedChatModel(BaseChatModel):
    """The model of a caller, for the conversation of one KD step.

    Args:
        prompt_hash: Of the template behind the first messages, for the log.
    """

    _caller: Caller = PrivateAttr()
    _kd_step: int = PrivateAttr()
    _prompt_hash: str = PrivateAttr()
    _transcript: list[BaseMessage] = PrivateAttr(default_factory=list)
    _num_calls: int = PrivateAttr(default=0)
    _num_refused: int = PrivateAttr(default=0)
    _usage: TokenUsage = PrivateAttr(default=TokenUsage())

    def __init__(self, caller: Caller, kd_step: int, prompt_hash: str) -> None:
        super().__init__()
        self._caller = caller
        self._kd_step = kd_step
        self._prompt_hash = prompt_hash

    @property
    def transcript(self) -> list[BaseMessage]:
        """The conversation up to the last answer."""
        return self._transcript

    @property
    def num_calls(self) -> int:
        return self._num_calls

    @property
    def num_refused(self) -> int:
        """Calls in which model or filter declined to answer."""
        return self._num_refused

    @property
    def usage(self) -> TokenUsage:
        return self._usage

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Tools in the form that the model's own class gives them.

        Raises:
            NotImplementedError: It takes none.
        """
        bound: Any = self._caller.chat.model.bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    @property
    def _llm_type(self) -> str:
        return "gated"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call_id = CallId(self._kd_step, 0, self._num_calls)
        plain = [_plain(message) for message in messages]

        def call_of(settings: Settings) -> Call:
            with_tools = json.loads(json.dumps({**settings, **kwargs}, default=_name_of))
            return self._caller.record(call_id, self._prompt_hash, with_tools, plain)

        def send(model: Runnable[Any, AIMessage], _call: Call) -> AIMessage:
            return model.bind(**kwargs).invoke(messages, stop=stop)

        reply = self._caller.exchange(call_id, call_of, send, lambda answer: json.dumps(message_to_dict(answer)))
        # Without text, a filter stood in for the model.
        answer: BaseMessage = AIMessage("", response_metadata={"finish_reason": reply.finish_reason})
        if reply.text:
            (answer,) = messages_from_dict([json.loads(reply.text)])
        self._num_calls += 1
        self._num_refused += reply.is_refusal
        self._usage += reply.usage
        self._transcript = [*messages, answer]
        return ChatResult(generations=[ChatGeneration(message=answer)])


def _name_of(tool: Any) -> str:
    """Of a tool that the model's class takes as an object: its `repr` differs from run to run."""
    return str(getattr(tool, "name", type(tool).__name__))


def _plain(message: BaseMessage) -> dict[str, Any]:
    """What decides the reply: no ids, which the framework draws anew in every run."""
    fields: dict[str, Any] = {"role": message.type, "content": message.content}
    if isinstance(message, AIMessage) and message.tool_calls:
        fields["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
    if message.name:
        fields["name"] = message.name
    return fields
