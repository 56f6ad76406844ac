"""An intent classifier in a chain: the student names the intent, which picks the instructions for the LLM's answer.

python examples/intent_chain.py runs/demo/models/best "The lamp arrived in pieces." --llm openai:gpt-4o-mini
"""

from __future__ import annotations

import argparse

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from pgkd_agent import Prediction, StudentClassifier

INSTRUCTIONS = {
    "damaged_item": "Say sorry, and ask for a photo of the damage and the order number.",
    "refund_request": "Say that a refund takes five days, and ask for the order number.",
}
OTHERWISE = "Answer in one friendly sentence, and say that a colleague will write soon."
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You work at a support desk. {instructions}"), ("human", "{text}")]
)


def instructions(prediction: Prediction) -> str:
    return INSTRUCTIONS.get(prediction.label, OTHERWISE)


def build_chain(classifier: StudentClassifier, llm: BaseChatModel) -> Runnable[str, str]:
    choose = {"text": RunnablePassthrough(), "instructions": classifier | RunnableLambda(instructions)}
    return choose | PROMPT | llm | StrOutputParser()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--llm", default="openai:gpt-4o-mini")
    given = parser.parse_args()
    print(build_chain(StudentClassifier.load(given.model), init_chat_model(given.llm)).invoke(given.text))
