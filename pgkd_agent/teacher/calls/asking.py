"""Ask many questions at once, and one again with a shorter prompt until it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, as_completed
from typing import TypeVar

from langchain_core.runnables.config import ContextThreadPoolExecutor

from pgkd_agent.errors import BudgetExceededError, TeacherContextError

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")


def fan_out(
    ask: Callable[[QuestionT], AnswerT], questions: Iterable[QuestionT], at_once: int, stop: Callable[[], None]
) -> Iterator[tuple[int, AnswerT]]:
    """Yield (number of the question from 0, answer) as answers come in, in no particular order.

    LangChain's callbacks of the place where this is called hold for the threads too.

    Args:
        at_once: Questions under way at the same time.
        stop: Called where not all are wanted any more: else the others would go on asking, and paying.
    Raises:
        BudgetExceededError: A cap was reached; answers to what was sent before are yielded first, and questions not yet
            sent are dropped.
        Exception: What else a question raised; questions not yet sent are dropped.
    """
    over: BudgetExceededError | None = None
    with ContextThreadPoolExecutor(at_once) as pool:
        numbers: dict[Future[AnswerT], int] = {}
        try:
            for number, question in enumerate(questions):
                numbers[pool.submit(ask, question)] = number
            for done in as_completed(numbers):
                if done.cancelled():
                    continue
                try:
                    answer = done.result()
                except BudgetExceededError as error:
                    over = over or error
                    for waiting in numbers:
                        waiting.cancel()
                    continue
                yield numbers[done], answer
        except BaseException:
            stop()
            pool.shutdown(cancel_futures=True)
            raise
    if over:
        raise over


def until_it_fits(
    ask: Callable[[QuestionT], AnswerT], question: QuestionT, shorter: Callable[[QuestionT], QuestionT | None]
) -> AnswerT:
    """Ask; as long as the prompt is longer than the model takes, with a shorter one.

    Args:
        shorter: None where nothing more can be left out.
    Raises:
        TeacherContextError: It is too long with all left out.
    """
    while True:
        try:
            return ask(question)
        except TeacherContextError:
            smaller = shorter(question)
            if smaller is None:
                raise
            question = smaller
