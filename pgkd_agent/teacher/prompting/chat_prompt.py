"""`ChatPrompt`: a prompt variant as the first link of a LangChain chain."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts.chat import BaseChatPromptTemplate
from pydantic import PrivateAttr

from pgkd_agent.teacher.prompting.templates import PromptTemplate

_MESSAGE_TYPES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "human": HumanMessage,
    "assistant": AIMessage,
}


class ChatPrompt(BaseChatPromptTemplate):
    """Takes the values of a template, by name, and gives its chat messages; see `PromptTemplate.render`."""

    _template: PromptTemplate = PrivateAttr()

    def __init__(self, template: PromptTemplate) -> None:
        # Optional for LangChain: what is missing is said by the template, with a `PromptError`.
        super().__init__(input_variables=[], optional_variables=sorted(template.variables))
        self._template = template

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """
        Raises:
            PromptError: See `PromptTemplate.render`.
        """
        return [_MESSAGE_TYPES[message.role](content=message.content) for message in self._template.render(kwargs)]

    def pretty_repr(self, html: bool = False) -> str:
        return self._template.source
