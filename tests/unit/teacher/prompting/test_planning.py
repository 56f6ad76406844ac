from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from pgkd_agent.teacher.prompting.planning import count_confusions, plan_pairs, plan_requests, shrunk_f1
from pgkd_agent.types import Confusion
from tests.unit.builders import item, report

REPORT = report(a=(0.1, 20), b=(0.95, 20), c=(0.0, 0))
WIDE = report(a=(0.8, 20), b=(0.7, 20), c=(0.2, 20), d=(0.9, 20), e=(0.6, 20))
OFTEN = (Confusion("a", "b", 4), Confusion("b", "a", 5), Confusion("d", "c", 3), Confusion("e", "a", 1))


def pairs_of(sources: tuple[tuple[Confusion, ...], ...], requests: int, seed: int = 0) -> list[tuple[str, ...]]:
    planned = plan_pairs(sources, WIDE, 4 * requests, 4, random.Random(seed))
    return [request.labels for request in planned]


def test_a_weak_class_is_asked_for_more_often_and_none_twice() -> None:
    counts: Counter[str] = Counter()
    for seed in range(400):
        planned = plan_requests(REPORT, 8, 4, random.Random(seed))
        assert len({request.label for request in planned}) == 2
        counts.update(request.label for request in planned)
    assert counts["a"] > counts["b"] * 2
    assert counts["b"] < counts["c"] < counts["a"]  # no data: like the mean class


def test_no_class_comes_again_before_all_others_have_come() -> None:
    asked: Counter[str] = Counter()
    for step in range(5):
        planned = plan_requests(WIDE, 8, 4, random.Random(step), asked)
        asked.update(request.label for request in planned)
        if step == 1:
            assert max(asked.values()) == 1, "two of five classes a step"
    assert set(asked.values()) == {2}
    first = Counter(plan_requests(WIDE, 8, 4, random.Random(seed), {"c": 1})[0].label for seed in range(200))
    assert "c" not in first and first["e"] > first["d"], "of the others the weak one is likelier to be the first"


def test_sizes_add_up_also_beyond_the_number_of_classes() -> None:
    planned = plan_requests(REPORT, 18, 4, random.Random(0))
    assert [request.num_samples for request in planned] == [4, 4, 4, 4, 2]
    assert max(Counter(request.label for request in planned).values()) == 2


def test_f1_is_shrunk_by_support() -> None:
    assert shrunk_f1(REPORT.of("c"), 0.5) == 0.5
    assert 0.1 < shrunk_f1(REPORT.of("a"), 0.5) < shrunk_f1(replace(REPORT.of("a"), support=2), 0.5) < 0.5


def test_pairs_come_up_as_often_as_they_are_confused_in_both_directions() -> None:
    first = Counter(pairs_of((OFTEN,), 1, seed)[0] for seed in range(1300))
    assert first.keys() == {("b", "a"), ("d", "c"), ("e", "a")}  # the class that is missed more often comes first
    assert abs(first["b", "a"] - 900) < 80 and abs(first["d", "c"] - 300) < 70 and abs(first["e", "a"] - 100) < 50


def test_a_tie_between_directions_goes_by_the_order_of_the_classes() -> None:
    assert pairs_of(((Confusion("d", "b", 2), Confusion("b", "d", 2)),), 1) == [("b", "d")]


def test_a_later_source_is_drawn_from_only_when_those_before_are_used_up() -> None:
    later = (Confusion("a", "b", 99), Confusion("b", "d", 99), Confusion("d", "e", 1))
    for seed in range(30):
        pairs = pairs_of((OFTEN, later), 9, seed)
        assert {*pairs[:3]} == {("b", "a"), ("d", "c"), ("e", "a")}
        assert {*pairs[3:5]} == {("b", "d"), ("d", "e")}  # (a, b) came before, as (b, a)
        assert {*pairs[5:8]} == {("c", "a"), ("c", "b"), ("c", "e")}  # c is weakest; (d, c) came before
        assert pairs[8] in pairs[:3]  # all are used up
    assert len({tuple(pairs_of((OFTEN, later), 9, seed)[5:8]) for seed in range(30)}) > 1


def test_a_student_without_mistakes_gets_pairs_of_its_weakest_class() -> None:
    assert {*pairs_of(((), ()), 4)} == {("c", "a"), ("c", "b"), ("c", "d"), ("c", "e")}
    assert pairs_of(((), ()), 4) == pairs_of(((), ()), 4)


def test_sizes_of_pairs_add_up() -> None:
    planned = plan_pairs((OFTEN,), WIDE, 10, 4, random.Random(0))
    assert [request.num_samples for request in planned] == [4, 4, 2]


def test_confusions_are_counted_without_what_is_right() -> None:
    rows = [item("a", "a"), item("b", "a"), item("a", "b"), item("a", "b"), item("c", "c")]
    assert count_confusions(rows) == (Confusion("a", "b", 2), Confusion("b", "a", 1))
