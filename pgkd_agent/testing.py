"""`ScriptedChatModel`: a chat model for tests that plays a script and records what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

Reply = str | AIMessage | Exception | Callable[[list[BaseMessage]], "str | AIMessage"]


class ScriptError(AssertionError):
    """The script ran out, or was not played to its end."""


class ScriptedChatModel(BaseChatModel):
    """Answers with the replies in order.

    A reply is a text, an `AIMessage` (with tool calls, usage, a finish reason), an exception to raise, or
    a function of the messages. One call too many raises `ScriptError`; so does leaving the `with` block
    with replies left over.
    """

    _replies: list[Reply] = PrivateAttr()
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _settings: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    def __init__(self, replies: Sequence[Reply], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._replies = list(replies)

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        """The messages of each call so far."""
        return self._prompts

    @property
    def settings(self) -> list[dict[str, Any]]:
        """What was bound to each call: seed, schema, tools."""
        return self._settings

    @property
    def prompt_text(self) -> str:
        """All prompts so far as one text, to search in."""
        return "\n".join(message.text for prompt in self._prompts for message in prompt)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=tools, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = len(self._replies) - len(self._prompts)
        if kind is None and left > 0:
            raise ScriptError(f"{left} of {len(self._replies)} scripted replies were not asked for")

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if len(self._prompts) >= len(self._replies):
            raise ScriptError(f"call {len(self._prompts) + 1}, but the script has {len(self._replies)} replies")
        reply = self._replies[len(self._prompts)]
        self._prompts.append(messages)
        self._settings.append(kwargs)
        if isinstance(reply, Exception):
            raise reply
        if not isinstance(reply, (str, AIMessage)):
            reply = reply(messages)
        message = AIMessage(content=reply) if isinstance(reply, str) else reply
        return ChatResult(generations=[ChatGeneration(message=message)])
