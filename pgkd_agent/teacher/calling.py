"""One call of a chat model: settings by capability, retries, and a line in the call log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from pgkd_agent.prompts import Message
from pgkd_agent.seeding import derive_seed
from pgkd_agent.teacher.call_log import Call, CallLog, RawReply
from pgkd_agent.teacher.factory import ChatTeacher
from pgkd_agent.teacher.failures import call_with_retries
from pgkd_agent.types import TokenUsage

_MESSAGE_TYPES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "assistant": AIMessage,
}


@dataclass(frozen=True, slots=True)
class CallId:
    """Which call of a run this is; its sampling seed derives from it. `attempt` counts from 0."""

    kd_step: int
    request_index: int
    attempt: int = 0


class Caller:
    """Calls one model.

    Args:
        prompt_hash: Of the template behind the messages, for the log.
        seed: Of the run.
        max_attempts: Tries of a call that fails for a passing reason.
    """

    def __init__(self, chat: ChatTeacher, prompt_hash: str, log: CallLog, seed: int, max_attempts: int) -> None:
        self._chat = chat
        self._prompt_hash = prompt_hash
        self._log = log
        self._seed = seed
        self._max_attempts = max_attempts

    def call(
        self,
        messages: Sequence[Message],
        call_id: CallId,
        schema: Mapping[str, Any] | None = None,
        same_beginning: bool = False,
    ) -> RawReply:
        """Send the messages, unless their reply is in the log; it is there before it is returned.

        Args:
            schema: JSON Schema of the answer; not sent where the provider takes none.
            same_beginning: Calls that follow begin with the same long text; worth remembering where that is possible.
        Raises:
            TeacherUnavailableError: The provider failed for good.
        """
        settings = self._settings(call_id, schema, same_beginning)
        call = Call(
            call_id.kd_step,
            call_id.request_index,
            call_id.attempt,
            self._chat.model_id,
            self._prompt_hash,
            {**settings, **self._sampling()},
            tuple(messages),
        )
        if logged := self._log.find(call):
            return logged
        model = self._chat.model.bind(**settings)
        sent = [_MESSAGE_TYPES[message.role](content=message.content) for message in messages]
        started = time.perf_counter()
        answer = call_with_retries(lambda: model.invoke(sent), self._max_attempts, f"teacher {self._chat.model_id}")
        reply = RawReply(answer.text, finish_reason(answer), token_usage(answer), time.perf_counter() - started)
        self._log.append(call, reply)
        return reply

    def _sampling(self) -> dict[str, Any]:
        """What the model was built with that decides its replies."""
        model = self._chat.model
        return {name: getattr(model, name, None) for name in ("temperature", "max_tokens")}

    def _settings(self, call_id: CallId, schema: Mapping[str, Any] | None, same_beginning: bool) -> dict[str, Any]:
        """What varies from call to call: the seed, the schema, and a length in a field of its own."""
        can = self._chat.capabilities
        settings: dict[str, Any] = {}
        body: dict[str, Any] = {}
        if can.seed:
            purpose = f"request/{call_id.request_index}/{call_id.attempt}"
            settings["seed"] = derive_seed(self._seed, call_id.kd_step, purpose)
        if can.structured == "json_schema" and schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        if can.max_tokens_field:
            body["max_tokens"] = getattr(self._chat.model, "max_tokens", None)
        if can.prefix_cache and same_beginning:
            body["cache_prompt"] = True
        return {**settings, "extra_body": body} if body else settings


def finish_reason(answer: AIMessage) -> str:
    metadata = answer.response_metadata
    return str(metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("stopReason") or "")


def token_usage(answer: AIMessage) -> TokenUsage:
    usage = answer.usage_metadata
    return TokenUsage(usage["input_tokens"], usage["output_tokens"]) if usage else TokenUsage()
