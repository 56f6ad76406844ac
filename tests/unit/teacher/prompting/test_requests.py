from __future__ import annotations

from dataclasses import replace

import pytest

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.teacher.prompting import requests as requests_module
from pgkd_agent.teacher.prompting.requests import PromptRequest, RequestPlanner, shrunk
from pgkd_agent.teacher.prompting.templates import PromptTemplate, list_prompts, load_prompt
from pgkd_agent.types import Confusion, Evidence, Example, Label, TeacherRequest
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
    confusions=(Confusion("b", "a", 7), Confusion("a", "b", 2), Confusion("a", "c", 1)),
)
MANY = (*TAXONOMY, *(Label(f"class {n}") for n in range(30)))
CONFIG = build_config(flags={"teacher.samples_per_request": 4})
PER_CLASS = load_prompt("per_class")
CONTRASTIVE = load_prompt("contrastive")


def planned(request: TeacherRequest, template: PromptTemplate, config: PGKDConfig) -> list[PromptRequest]:
    return RequestPlanner.of(template, config).plan(request)


@pytest.fixture(autouse=True)
def three_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_module, "PER_CLASS", 3)


def test_a_request_about_a_class_shows_only_what_concerns_it() -> None:
    requests = planned(REQUEST, PER_CLASS, CONFIG)
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
    again = planned(REQUEST, PER_CLASS, CONFIG)
    assert again == planned(REQUEST, PER_CLASS, CONFIG)
    later = planned(replace(REQUEST, kd_step=2), PER_CLASS, CONFIG)
    other = planned(REQUEST, PER_CLASS, CONFIG.model_copy(update={"seed": 5}))
    assert again != later and again != other


def test_the_paper_prompt_is_one_request_over_all_classes() -> None:
    (request,) = planned(REQUEST, load_prompt("paper"), CONFIG)
    assert (request.num_samples, request.labels, request.target) == (11, ("a", "b", "c"), None)


def test_a_prompt_is_shortened_in_a_fixed_order_until_nothing_can_go() -> None:
    config = build_config(flags={"evidence.few_shot": 4})
    shown = replace(REQUEST, few_shot=REQUEST.train[:4], evidence=Evidence(SCORED[:2], SCORED[2:6], SCORED[6:8]))
    (request,) = planned(replace(shown, taxonomy=MANY), load_prompt("paper"), config)
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


@pytest.mark.parametrize("variant", list_prompts())
def test_every_variant_renders_and_shrinks_to_its_last_row(variant: str) -> None:
    template = load_prompt(variant)
    shown = replace(REQUEST, few_shot=REQUEST.train[:4], evidence=Evidence(SCORED[:2], SCORED[2:6], SCORED[6:8]))
    large = replace(shown, taxonomy=MANY, report=report(**{label.name: (0.5, 4) for label in MANY}), num_samples=132)
    requests = planned(large, template, CONFIG)
    assert any(request.shown_texts for request in requests)
    for request in requests:
        before, texts = "\n".join(m.content for m in template.render(request.values)), request.shown_texts
        assert all(text in before for text in texts)
        while smaller := shrunk(request):
            request, what = smaller
            after = "\n".join(m.content for m in template.render(request.values))
            assert len(after) < len(before), f"nothing became shorter by leaving out {what}"
            before = after
        assert not any(text in before for text in texts)


def test_a_pool_that_a_template_does_not_show_counts_as_not_shown() -> None:
    shown = replace(REQUEST, evidence=Evidence(hard_negatives=SCORED[:2], misclassified=SCORED[2:4]))
    (paper,) = planned(shown, load_prompt("paper"), CONFIG)
    (ablation,) = planned(shown, load_prompt("no_hard_negatives"), CONFIG)
    assert paper.shown_texts - ablation.shown_texts == {row.text for row in SCORED[:2]}
    assert ablation.values["misclassified"] == paper.values["misclassified"]


def test_a_report_that_is_not_shown_does_not_choose_the_classes() -> None:
    weak = replace(REQUEST, report=report(a=(0.0, 500), b=(1.0, 500), c=(1.0, 500)), num_samples=4)

    def first_asked_about(variant: str, kd_step: int) -> str:
        return planned(replace(weak, kd_step=kd_step), load_prompt(variant), CONFIG)[0].labels[0]

    guided = [first_asked_about("per_class", kd_step) for kd_step in range(1, 41)]
    blind = [first_asked_about("per_class_no_report", kd_step) for kd_step in range(1, 41)]
    assert guided.count("a") > 30 > blind.count("a")


def test_a_request_about_a_pair_shows_both_classes_and_what_is_taken_for_what() -> None:
    requests = planned(REQUEST, CONTRASTIVE, CONFIG)
    assert [request.num_samples for request in requests] == [4, 4, 3]
    assert {frozenset(request.labels) for request in requests} == {frozenset("ab"), frozenset("ac"), frozenset("bc")}
    for request in requests:
        pair, values = set(request.labels), request.values
        assert request.target is None  # a sample without a label has none
        assert (values["target"]["name"], values["rival"]["name"]) == request.labels
        assert [row["label"] for row in values["few_shot"]] == [name for name in request.labels for _ in range(3)]
        for pool in ("correct", "misclassified", "hard_negatives"):
            assert len(values[pool]) == 6
            assert all({row["label"], row["predicted_label"]} <= pair for row in values[pool])
        assert {row["label"] for row in values["correct"]} == pair
        assert {line.split()[0] for line in values["classification_report"].splitlines()[1:]} == pair
    about_ab = next(request for request in requests if set(request.labels) == {"a", "b"})
    assert about_ab.labels == ("b", "a")  # b is missed more often
    text = CONTRASTIVE.render(about_ab.values)[-1].content
    assert '7 rows of "b" were taken for "a".\n2 rows of "a" were taken for "b".\n' in text
    about_ac = next(request for request in requests if set(request.labels) == {"a", "c"})
    assert '\n1 row of "a" was taken for "c".\n' in CONTRASTIVE.render(about_ac.values)[-1].content


def test_pairs_come_from_the_scored_rows_where_the_validation_rows_name_too_few() -> None:
    shown = replace(
        REQUEST, num_samples=8, confusions=(Confusion("c", "b", 1),), scored=(item("a", "c"), item("a", "a"))
    )
    requests = planned(shown, CONTRASTIVE, CONFIG)
    assert [request.labels for request in requests] == [("c", "b"), ("a", "c")]
    assert requests[1].values["confusions"] == []


def test_two_classes_make_one_pair_again_and_again() -> None:
    taxonomy = TAXONOMY[:2]
    binary = replace(REQUEST, taxonomy=taxonomy, report=report(a=(0.9, 9), b=(0.2, 9)), confusions=(), scored=())
    requests = planned(binary, CONTRASTIVE, CONFIG)
    assert [request.labels for request in requests] == [("b", "a")] * 3
    assert requests[0].values["few_shot"] != requests[1].values["few_shot"]


def test_each_sample_has_attributes_of_its_own() -> None:
    template = load_prompt("attributes")
    requests = planned(REQUEST, template, CONFIG)
    assert [len(request.values["attributes"]) for request in requests] == [4, 4, 3]
    for request in requests:
        combinations = [tuple(sample.values()) for sample in request.values["attributes"]]
        assert len(set(combinations)) == len(combinations)
    assert requests[0].values["attributes"] != requests[1].values["attributes"]
    assert requests == planned(REQUEST, template, CONFIG)
    later = planned(replace(REQUEST, kd_step=2), template, CONFIG)
    assert requests[0].values["attributes"] != later[0].values["attributes"]
    first = requests[0].values["attributes"][0]
    line = "1. " + "; ".join(f"{name}: {value}" for name, value in first.items())
    assert f"\n{line}\n2. " in template.render(requests[0].values)[-1].content


def test_attributes_and_confusions_are_there_for_a_prompt_over_all_classes_too() -> None:
    template = PromptTemplate("mine", "{{ attributes }} {{ confusions }}", attributes={"tone": ("dry", "warm")})
    (request,) = planned(replace(REQUEST, num_samples=2), template, CONFIG)
    assert {sample["tone"] for sample in request.values["attributes"]} == {"dry", "warm"}
    assert request.values["confusions"][0] == {"label": "b", "predicted_label": "a", "count": 7}
    about_c = next(r for r in planned(REQUEST, PER_CLASS, CONFIG) if r.target == "c")
    assert about_c.values["confusions"] == [{"label": "a", "predicted_label": "c", "count": 1}]
