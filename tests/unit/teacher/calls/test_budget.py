from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.config import BudgetSettings
from pgkd_agent.errors import BudgetExceededError, ConfigError
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import PriceTable
from pgkd_agent.types import TokenUsage

PRICES = PriceTable.model_validate(
    {"as_of": "2026-01-01", "models": {"m": {"input_per_million": 1.0, "output_per_million": 10.0}}}
)


def budget(**caps: float) -> Budget:
    return Budget(BudgetSettings.model_validate(caps), PRICES)


def spend(purse: Budget, most: TokenUsage, used: TokenUsage | None) -> bool:
    """Whether the call was allowed; None never settles it."""
    try:
        with purse.reserved("m", most) as settle:
            if used:
                settle(used)
    except BudgetExceededError:
        return False
    return True


def test_without_caps_everything_is_allowed() -> None:
    assert all(spend(budget(), TokenUsage(10**9, 10**9), None) for _ in range(3))


def test_what_was_not_used_is_given_back_and_an_unsettled_call_counts_in_full() -> None:
    purse = budget(max_tokens=100)
    assert spend(purse, TokenUsage(60, 40), TokenUsage(30, 10))
    assert spend(purse, TokenUsage(30, 30), None)
    assert not spend(purse, TokenUsage(1, 0), TokenUsage(1, 0))


@pytest.mark.parametrize(
    ("caps", "message"),
    [
        ({"max_tokens": 9}, "max_tokens is 9: 0 are spent, and the next call may take 10"),
        ({"max_usd": 0.00001}, r"max_usd is 1e-05: 0.0000 are spent, and the next call may cost 0.0001"),
        ({"max_calls": 0}, "max_calls is 0"),
        ({"max_minutes": 0}, "max_minutes is 0: 0 s are left"),
    ],
)
def test_each_cap_says_what_stands_in_the_way(caps: dict[str, float], message: str) -> None:
    with pytest.raises(BudgetExceededError, match=message), budget(**caps).reserved("m", TokenUsage(5, 5)):
        pytest.fail("was let through")
    with pytest.raises(BudgetExceededError, match="raise the cap"):
        budget(**caps).require_room("m", TokenUsage(5, 5))


def test_failed_calls_count_as_calls() -> None:
    purse = budget(max_calls=2)
    assert [spend(purse, TokenUsage(5, 5), TokenUsage()) for _ in range(3)] == [True, True, False]


def test_time_is_left_for_one_more_fit() -> None:
    now = [0.0]
    purse = Budget(BudgetSettings(max_minutes=2), PRICES, clock=lambda: now[0])
    purse.seconds_to_leave = 50.0
    now[0] = 69.0
    assert spend(purse, TokenUsage(1, 1), TokenUsage(1, 1))
    now[0] = 71.0
    with pytest.raises(BudgetExceededError, match="49 s are left, and the fits to come take 50 s"):
        purse.require_room("m", TokenUsage())


def test_a_cap_on_money_needs_a_price() -> None:
    with pytest.raises(ConfigError, match="needs a price for other"):
        budget(max_usd=1).check("other")
    budget(max_usd=1).check("m")
    budget(max_usd=1).check("local:x")
    budget(max_tokens=1).check("other")


@pytest.mark.parametrize("cap", ["max_usd", "max_calls", "max_tokens", "max_minutes"])
def test_a_cap_that_cannot_be_kept_is_refused(cap: str) -> None:
    """Without a limit a reply may cost anything; what a client sends again by itself is not seen."""
    purse = budget(**{cap: 1})
    for problem, message, caps in (
        ({"has_reply_limit": False}, "replies have no limit", ("max_usd", "max_tokens")),
        ({"has_retries": True}, "max_retries=0", ("max_usd", "max_calls", "max_tokens")),
    ):
        if cap in caps:
            with pytest.raises(ConfigError, match=message):
                purse.check("m", **problem)
        else:
            purse.check("m", **problem)


def test_a_call_that_was_not_sent_counts_for_nothing() -> None:
    purse = budget(max_calls=1, max_tokens=10)
    with purse.reserved("m", TokenUsage(5, 5)) as settle:
        settle(None)
    assert spend(purse, TokenUsage(5, 5), TokenUsage(5, 5)) and not spend(purse, TokenUsage(0, 0), TokenUsage())


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(50, 400), st.sampled_from(["max_tokens", "max_usd"]))
def test_a_cap_is_never_exceeded_by_calls_under_way_at_once(seed: int, cap: int, kind: str) -> None:
    """Whatever the calls take of what they may: at no moment is more spent than allowed."""
    purse = budget(**{kind: cap if kind == "max_tokens" else cap * 10 / 1e6})  # ten dollars a million output tokens
    chosen = random.Random(seed)
    spent = 0
    lock = threading.Lock()

    def call(sizes: tuple[int, int]) -> None:
        nonlocal spent
        most, used = sizes
        try:
            with purse.reserved("m", TokenUsage(0, most)) as settle:
                with lock:
                    spent += used
                    assert spent <= cap
                time.sleep(0)
                settle(TokenUsage(0, used))
        except BudgetExceededError:
            pass

    sizes = [(most := chosen.randint(1, 40), chosen.randint(0, most)) for _ in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, sizes))
    assert spent <= cap
    assert spent > cap - 40 or spent == sum(used for _, used in sizes)  # and no room is left unused for long


def test_a_call_waits_for_what_others_may_give_back() -> None:
    purse = budget(max_tokens=100)
    holds, release = threading.Event(), threading.Event()

    def hold() -> None:
        with purse.reserved("m", TokenUsage(0, 90)) as settle:
            holds.set()
            release.wait(10)
            settle(TokenUsage(0, 5))

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(hold)
        holds.wait(10)
        second = pool.submit(spend, purse, TokenUsage(0, 50), TokenUsage(0, 50))
        time.sleep(0.05)
        assert not second.done()
        release.set()
        assert second.result(10) and first.result(10) is None


def test_calls_of_an_earlier_part_of_the_run_count() -> None:
    purse = budget(max_tokens=100, max_calls=4)
    purse.count([("m", 3, TokenUsage(60, 30))])
    assert not spend(purse, TokenUsage(0, 11), TokenUsage()) and spend(purse, TokenUsage(0, 10), TokenUsage())
    assert not spend(purse, TokenUsage(), TokenUsage())  # that was the fourth
