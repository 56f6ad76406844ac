from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from pgkd_agent.config import build_config
from pgkd_agent.planning import plan_requests, shrunk_f1
from pgkd_agent.prompts import load_prompt
from pgkd_agent.teacher.requests import plan_prompt_requests, shrunk
from pgkd_agent.types import Evidence, Example, Label, TeacherRequest
from tests.unit.builders import TAXONOMY, item, report

REPORT = report(a=(0.1, 20), b=(0.95, 20), c=(0.0, 0))
SCORED = tuple(item(g, p, n / 100, f"{g} for {p} {n}") for n in range(1, 9) for g in "abc" for p in "abc")
REQUEST = TeacherRequest(
    kd_step=1,
    num_samples=11,
    taxonomy=TAXONOMY,
    task_description="",
    report=REPORT,
    evidence=Evidence(),
    few_shot=(),
    scored=SCORED,
    train=tuple(Example(f"{label} row {n}", label) for label in "abc" for n in range(9)),
)
MANY = (*TAXONOMY, *(Label(f"class {n}") for n in range(30)))
CONFIG = build_config(flags={"teacher.samples_per_request": 4, "evidence.per_class": 3})
PER_CLASS = load_prompt("per_class")


def test_a_weak_class_is_asked_for_more_often_and_none_twice() -> None:
    counts: Counter[str] = Counter()
    for seed in range(400):
        planned = plan_requests(REPORT, 8, 4, random.Random(seed))
        assert len({request.label for request in planned}) == 2
        counts.update(request.label for request in planned)
    assert counts["a"] > counts["b"] * 2
    assert counts["b"] < counts["c"] < counts["a"]  # no data: like the mean class


def test_sizes_add_up_also_beyond_the_number_of_classes() -> None:
    planned = plan_requests(REPORT, 18, 4, random.Random(0))
    assert [request.num_samples for request in planned] == [4, 4, 4, 4, 2]
    assert max(Counter(request.label for request in planned).values()) == 2


def test_f1_is_shrunk_by_support() -> None:
    assert shrunk_f1(REPORT.of("c"), 0.5) == 0.5
    assert 0.1 < shrunk_f1(REPORT.of("a"), 0.5) < shrunk_f1(replace(REPORT.of("a"), support=2), 0.5) < 0.5


def test_a_request_about_a_class_shows_only_what_concerns_it() -> None:
    requests = plan_prompt_requests(REQUEST, PER_CLASS, CONFIG)
    assert sum(request.num_samples for request in requests) == 11
    for request in requests:
        target, values = request.target, request.values
        assert request.labels == (target,)
        assert len(values["few_shot"]) == 3 and {row["label"] for row in values["few_shot"]} == {target}
        for pool in ("correct", "misclassified", "hard_negatives"):
            assert len(values[pool]) == 3
            assert all(target in (row["label"], row["predicted_label"]) for row in values[pool])
        lines = values["classification_report"].splitlines()
        assert len(lines) == 2 and lines[1].startswith(f"{target} ")
        assert request.shown_texts >= {row["text"] for row in values["few_shot"] + values["hard_negatives"]}


def test_requests_derive_from_seed_and_step() -> None:
    again = plan_prompt_requests(REQUEST, PER_CLASS, CONFIG)
    assert again == plan_prompt_requests(REQUEST, PER_CLASS, CONFIG)
    later = plan_prompt_requests(replace(REQUEST, kd_step=2), PER_CLASS, CONFIG)
    other = plan_prompt_requests(REQUEST, PER_CLASS, CONFIG.model_copy(update={"seed": 5}))
    assert again != later and again != other


def test_the_paper_prompt_is_one_request_over_all_classes() -> None:
    (request,) = plan_prompt_requests(REQUEST, load_prompt("paper"), CONFIG)
    assert (request.num_samples, request.labels, request.target) == (11, ("a", "b", "c"), None)


def test_a_prompt_is_shortened_in_a_fixed_order_until_nothing_can_go() -> None:
    config = build_config(flags={"evidence.few_shot": 4})
    shown = replace(REQUEST, few_shot=REQUEST.train[:4], evidence=Evidence(SCORED[:2], SCORED[2:6], SCORED[6:8]))
    (request,) = plan_prompt_requests(replace(shown, taxonomy=MANY), load_prompt("paper"), config)
    left_out = []
    while smaller := shrunk(request):
        request, what = smaller
        left_out.append(what)
    assert left_out == [
        "2 of 4 rows of few_shot",
        "2 of 4 rows of misclassified",
        "1 of 2 rows of few_shot",
        "1 of 2 rows of correct",
        "1 of 2 rows of misclassified",
        "1 of 2 rows of hard_negatives",
        "1 of 1 rows of few_shot",
        "1 of 1 rows of correct",
        "1 of 1 rows of misclassified",
        "1 of 1 rows of hard_negatives",
        "all but the worst classes of the report",
        "all but the worst classes of the report",
    ]
    assert request.values["taxonomy"] and request.values["num_samples"] == REQUEST.num_samples
