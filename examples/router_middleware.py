"""An agent whose model depends on the message: easy intents go to a small LLM, the others to a large one.

python examples/router_middleware.py runs/demo/models/best "Where do I change my password?"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

from pgkd_agent import StudentClassifier

EASY = frozenset({"password_reset", "change_address", "delivery_delay"})


class Router(AgentMiddleware):
    """Takes `small` where the student is sure that the last message is an easy one."""

    def __init__(self, classifier: StudentClassifier, small: BaseChatModel, min_confidence: float = 0.7) -> None:
        super().__init__()
        self._classifier = classifier
        self._small = small
        self._min_confidence = min_confidence

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        asked = [message for message in request.messages if isinstance(message, HumanMessage)]
        prediction = self._classifier.invoke(asked[-1].text)
        is_easy = prediction.label in EASY and prediction.confidence >= self._min_confidence
        return handler(request.override(model=self._small) if is_easy else request)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--small", default="openai:gpt-4o-mini")
    parser.add_argument("--large", default="openai:gpt-4o")
    given = parser.parse_args()
    router = Router(StudentClassifier.load(given.model), init_chat_model(given.small))
    agent = create_agent(init_chat_model(given.large), middleware=[router])
    print(agent.invoke({"messages": [HumanMessage(given.text)]})["messages"][-1].text)
