"""What is tried again, how often, and after which wait."""

from __future__ import annotations

import pytest

from pgkd_agent.teacher.calls.failures import unavailable
from pgkd_agent.teacher.calls.retrying import call_with_retries
from tests.unit.teacher.calls.test_failures import Http


class Provider:
    """Raises the errors in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_waits_as_long_as_asked_and_else_a_little_longer_each_time() -> None:
    asked: list[float] = []
    assert call_with_retries(Provider(Http(429, retry_after="42"), Http(500)), 60, asked.append) == "answer"
    assert asked[0] == 42 and 2 <= asked[1] <= 3
    slept: list[float] = []
    assert call_with_retries(Provider(Http(500), Http(500)), 60, slept.append) == "answer"
    assert 1 <= slept[0] <= 2 <= slept[1] <= 3


@pytest.mark.parametrize(
    ("errors", "calls", "message"),
    [
        ([Http(500)] * 5, 3, "server error"),
        ([Http(429, retry_after="4000")], 1, "asks to wait 4000 s"),
        ([Http(401)], 1, "credentials missing or refused"),
        ([Http(429, "insufficient_quota")], 1, "quota used up"),
        ([Http(400)], 1, "check the model's name"),
    ],
)
def test_what_is_not_tried_again(errors: list[Exception], calls: int, message: str) -> None:
    slept: list[float] = []
    provider = Provider(*errors)
    with pytest.raises(Http) as caught:
        call_with_retries(provider, 60, slept.append)
    assert provider.calls == calls and len(slept) == calls - 1
    assert message in str(unavailable(caught.value, "teacher m"))


def test_no_try_begins_after_the_time_is_over() -> None:
    slept: list[float] = []
    provider = Provider(*[Http(429, retry_after="42")] * 9)
    with pytest.raises(Http):
        call_with_retries(provider, 40, slept.append)
    assert provider.calls == 1 and slept == []
