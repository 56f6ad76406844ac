"""`GatedChatModel`: the one door to a provider, for chain, agent and zero-shot, with log, budget, pace and retries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr

from pgkd_agent.teacher.calls.calling import Caller
from pgkd_agent.teacher.calls.question import CallId, Question
from pgkd_agent.teacher.prompting.answer import CONTRACT_LINE, LABEL_TEMPERATURE, LABEL_TOKENS, answer_schema
from pgkd_agent.teacher.providers.factory import with_short_replies

ANSWER_FIELDS = ("answer_schema", "answer_form", "same_beginning", "logprobs")
"""Of a `Question`: what may be bound beside an agent's tools."""


class GatedChatModel(BaseChatModel):
    """The model of a caller, for LangChain's chains and agents; may be shared by threads.

    Which call of the run it is comes with the `metadata` of the RunnableConfig, where callbacks see it too: `kd_step`,
    `request_index`, `attempt` (0 where it is not said) and `prompt_hash`; see `CallId.config`. An agent's calls have
    their `attempt` bound. The same question with the same identity is answered from the log. How the answer should look
    is bound: `answer_schema`, its form in words `answer_form`, `same_beginning` and `logprobs`; see `Question`. An
    answer's `response_metadata` has `model_name`, `finish_reason`, `seconds` (0 of a batch job), `batch` (whether it is
    of one) and `alternatives` (empty without `logprobs`); one that another run paid for, or whose provider does not
    report it, has no `usage_metadata`; an estimate is in `estimated_usage`.
    """

    _caller: Caller = PrivateAttr()

    def __init__(self, caller: Caller) -> None:
        super().__init__(cache=False)  # LangChain's own would take equal requests of a step for one
        self._caller = caller

    @property
    def caller(self) -> Caller:
        """What is behind the door: settings and dialect, the check, and the brake."""
        return self._caller

    @property
    def model_id(self) -> str:
        """As in a price table."""
        return self._caller.chat.model_id

    def for_labels(self) -> GatedChatModel:
        """The same model, set up to name labels: short replies, the likeliest words."""
        chat = with_short_replies(self._caller.chat, LABEL_TOKENS)
        if hasattr(chat.model, "temperature"):
            chat = replace(chat, model=chat.model.model_copy(update={"temperature": LABEL_TEMPERATURE}))
        return GatedChatModel(self._caller.with_model(chat))

    def sample_form(self, labels: Sequence[str], num_samples: int) -> dict[str, Any]:
        """What to bind for an answer of so many samples with these labels."""
        bounded = self._caller.chat.dialect.capabilities.array_bounds
        return {
            "answer_schema": answer_schema(labels, num_samples if bounded else None),
            "answer_form": CONTRACT_LINE.format(num_samples=num_samples),
        }

    def bind_tools(self, tools: Sequence[Any], *, attempt: int = 0, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Tools in the form that the model's own class gives them.

        Args:
            attempt: Which call of the conversation it is, from 0.
        Raises:
            NotImplementedError: It takes none.
        """
        bound: Any = self._caller.chat.model.bind_tools(tools, **kwargs)
        return self.bind(attempt=attempt, **bound.kwargs)

    @property
    def _llm_type(self) -> str:
        return "gated"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_id}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._caller.chat.model._get_ls_params(stop=stop)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        metadata = (run_manager.metadata if run_manager else None) or {}
        where = {name: kwargs.pop(name, metadata.get(name, 0)) for name in ("kd_step", "request_index", "attempt")}
        form = {name: kwargs.pop(name) for name in ANSWER_FIELDS if name in kwargs}
        tools = kwargs if stop is None else {**kwargs, "stop": stop}
        prompt_hash = metadata.get("prompt_hash", "")
        question = Question(CallId(**where), messages, prompt_hash, tools=tools, **form)
        answer = question.answer(self._caller.call(question), self.model_id)
        return ChatResult(generations=[ChatGeneration(message=answer)])
