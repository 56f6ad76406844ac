"""`Question`: what a chat model is asked, as LangChain has it, as the log keeps it and as a provider is sent it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, message_to_dict
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers.base import BaseGenerationOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable, RunnableConfig

from pgkd_agent.teacher.calls.call_log import Call, RawReply
from pgkd_agent.teacher.providers.dialect import finish_reason, reply_text, token_usage, with_whole_calls
from pgkd_agent.types import TokenUsage

ReadT = TypeVar("ReadT")

Settings = Mapping[str, Any]
"""What goes along with the messages: sampling, the form of the answer, tools."""


@dataclass(frozen=True, slots=True)
class CallId:
    """Which call of a run this is; its sampling seed derives from it. All three count from 0."""

    kd_step: int = 0
    request_index: int = 0
    attempt: int = 0

    def config(self, prompt_hash: str) -> RunnableConfig:
        """What tells a `GatedChatModel`, and LangChain's callbacks, which call it is."""
        return {"metadata": {**asdict(self), "prompt_hash": prompt_hash}}


CHECK = CallId(0, -1)
"""The call that finds out whether the teacher answers at all."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask.

    Attributes:
        prompt_hash: Of the template behind the messages, for the log.
        answer_schema: JSON Schema of the answer; None for one in words.
        answer_form: The same in words, added to the last message where the schema does not go along.
        same_beginning: Calls that follow begin with the same long text; worth remembering where that is possible.
        logprobs: Whether what else could have stood in the answer is wanted too, with its probability.
        tools: What an agent bound to the model, in the form of the model's own class; empty for other questions.
    """

    call_id: CallId
    messages: Sequence[BaseMessage]
    prompt_hash: str = ""
    answer_schema: Mapping[str, Any] | None = None
    answer_form: str = ""
    same_beginning: bool = False
    logprobs: bool = False
    tools: Mapping[str, Any] = field(default_factory=dict)

    def call(self, model_id: str, settings: Settings) -> Call:
        """For the log, with everything that decides the reply."""
        if self.tools:
            settings = json.loads(json.dumps({**settings, **self.tools}, default=_name_of))
        plain = [self._plain(message) for message in self._messages_with(settings)]
        return Call(
            **asdict(self.call_id), model=model_id, prompt_hash=self.prompt_hash, settings={**settings}, messages=plain
        )

    def send(self, model: Runnable[Any, AIMessage], settings: Settings) -> AIMessage:
        """Ask a model to which the settings are bound."""
        return with_whole_calls(model.bind(**self.tools).invoke(self._messages_with(settings)))

    def text_of(self, answer: AIMessage) -> str:
        """What of the answer goes into the log: of one to an agent all, since its tool calls count."""
        return json.dumps(message_to_dict(answer)) if self.tools else reply_text(answer)

    def answer(self, reply: RawReply, model_id: str) -> AIMessage:
        """A logged reply as a message; `reply_of` is the way back."""
        if self.tools and reply.text:  # without text, a filter stood in for the model
            message = AIMessage.model_validate(json.loads(reply.text)["data"])
        else:
            message = AIMessage(reply.text)
        message.response_metadata |= {"model_name": model_id, "finish_reason": reply.finish_reason}
        message.response_metadata |= {"seconds": reply.seconds, "note": reply.note}
        message.response_metadata |= {"alternatives": reply.alternatives, "batch": reply.usage.is_batch}
        message.usage_metadata = _usage(reply.usage)
        if message.usage_metadata is None:
            message.response_metadata["estimated_usage"] = astuple(reply.usage)
        return message

    def _messages_with(self, settings: Settings) -> Sequence[BaseMessage]:
        if not self.answer_form or settings.get("level") not in ("text", "json_object"):
            return self.messages
        *before, last = self.messages
        return [*before, last.model_copy(update={"content": f"{last.content}\n\n{self.answer_form}"})]

    def _plain(self, message: BaseMessage) -> dict[str, Any]:
        """What decides the reply: no ids, which the framework draws anew in every run."""
        is_ai = isinstance(message, AIMessage)
        fields: dict[str, Any] = {"role": "assistant" if is_ai and not self.tools else message.type}
        fields["content"] = message.content
        if isinstance(message, AIMessage) and message.tool_calls:
            fields["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
        if message.name:
            fields["name"] = message.name
        return fields


def reply_of(answer: BaseMessage) -> RawReply:
    """What a `GatedChatModel` answered, as it is in the log."""
    assert isinstance(answer, AIMessage)  # LangChain's type is the wider one
    said = answer.response_metadata
    usage = TokenUsage(*said["estimated_usage"]) if "estimated_usage" in said else token_usage(answer)
    usage = usage.in_batch() if said.get("batch") else usage
    text, reason = str(answer.text), finish_reason(answer)
    return RawReply(text, reason, usage, said.get("seconds", 0.0), said.get("note", ""), said.get("alternatives", ()))


class ReplyParser(BaseGenerationOutputParser[ReadT]):
    """The last link of a chain with a `GatedChatModel`.

    Attributes:
        read: From its reply to what the chain gives.
    """

    read: Callable[[RawReply], ReadT]

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> ReadT:
        """Read the one reply of a call."""
        (generation,) = result
        assert isinstance(generation, ChatGeneration)  # a chat model's
        return self.read(reply_of(generation.message))


def _usage(usage: TokenUsage) -> UsageMetadata | None:
    if usage == TokenUsage() or usage.estimated_calls:  # another run paid, or the provider does not say
        return None
    total = usage.input_tokens + usage.output_tokens
    return UsageMetadata(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=total)


def _name_of(tool: Any) -> str:
    """Of a tool that the model's class takes as an object: its `repr` differs from run to run."""
    return str(getattr(tool, "name", type(tool).__name__))
