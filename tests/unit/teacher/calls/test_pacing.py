from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pgkd_agent.teacher.calls.pacing import Pace


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def starts(pace: Pace, clock: Clock, calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        pace.wait()
        times.append(clock.now - 100.0)
    return times


def test_requests_are_spaced_evenly() -> None:
    clock = Clock()
    pace = Pace(requests_per_minute=30, clock=lambda: clock.now, sleep=clock.sleep)
    assert starts(pace, clock, 4) == [0, 2, 4, 6]


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(60, clock=lambda: clock.now, sleep=clock.sleep)
    assert starts(pace, clock, 2) == [0, 1]
    clock.now += 500
    assert starts(pace, clock, 3) == [501, 502, 503]


def test_without_a_rate_nobody_waits() -> None:
    clock = Clock()
    starts(Pace(clock=lambda: clock.now, sleep=clock.sleep), clock, 9)
    assert clock.slept == []


def test_threads_get_a_turn_each() -> None:
    slept: list[float] = []
    pace = Pace(requests_per_minute=60, clock=lambda: 0.0, sleep=slept.append)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: pace.wait(), range(20)))
    assert sorted(slept) == list(range(1, 20))


def test_a_turn_that_comes_too_late_is_not_taken_and_nobody_waits_for_it() -> None:
    clock = Clock()
    pace = Pace(requests_per_minute=6, clock=lambda: clock.now, sleep=clock.sleep)
    assert pace.wait(at_most=0) and not pace.wait(at_most=9.9)
    assert clock.slept == [] and pace.wait(at_most=10.0) and clock.slept == [10]
