from __future__ import annotations

import threading

import pytest

from pgkd_agent.errors import BudgetExceededError, TeacherContextError, TeacherUnavailableError
from pgkd_agent.teacher.calls.asking import fan_out, until_it_fits


def test_answers_come_with_the_numbers_of_their_questions() -> None:
    together = threading.Barrier(3, timeout=20)

    def ask(text: str) -> str:
        together.wait()  # breaks unless all three are under way at once
        return text.upper()

    assert dict(fan_out(ask, "abc", 3, pytest.fail)) == {0: "A", 1: "B", 2: "C"}


def test_a_cap_yields_what_was_answered_and_drops_the_rest() -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        if number == 2:
            raise BudgetExceededError("enough")
        return number

    answers = []
    with pytest.raises(BudgetExceededError, match="enough"):
        for pair in fan_out(ask, range(50), 1, pytest.fail):
            answers.append(pair)
    assert {(0, 0), (1, 1)} <= {*answers} and asked[:3] == [0, 1, 2] and len(answers) == len(asked) - 1


def test_a_failure_stops_the_others() -> None:
    stopped = threading.Event()

    def ask(number: int) -> None:
        if number == 1:
            raise TeacherUnavailableError("gone")
        assert stopped.wait(20)

    with pytest.raises(TeacherUnavailableError, match="gone"):
        list(fan_out(ask, range(2), 2, stopped.set))


def test_a_consumer_that_goes_away_stops_the_others() -> None:
    stopped = threading.Event()
    for _ in fan_out(lambda number: number or stopped.wait(20), [1, 0], 2, stopped.set):
        break
    assert stopped.is_set()


def test_a_question_is_shortened_until_it_fits() -> None:
    def ask(text: str) -> str:
        if len(text) > 3:
            raise TeacherContextError("too long")
        return text

    assert until_it_fits(ask, "abcdef", lambda text: text[:-1]) == "abc"
    with pytest.raises(TeacherContextError, match="too long"):
        until_it_fits(ask, "abcdef", lambda text: text[:-1] if len(text) > 5 else None)
