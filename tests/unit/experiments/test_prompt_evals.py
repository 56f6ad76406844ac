"""Suites of prompts, measures of what a teacher wrote, and the gate; without a student."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.experiments.prompt_evals import losses_against, read_baseline, read_suite, to_comparison
from pgkd_agent.experiments.prompt_evals.teaching import aim, evenness, novelty, read_teaching
from pgkd_agent.types import ClassMetrics

ROOT = Path(__file__).parents[3]
SUITE = """
seeds: [4, 5]
settings: {pgkd: {num_kd_steps: 1}}
datasets: {ag_news: {}}
variants: [paper, mine/short.j2]
teachers: {one: {spec: "openai:a"}, two: {spec: "openai:b"}}
"""


def written(folder: Path, text: str = SUITE) -> Path:
    file = folder / "suite.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_suite_is_a_comparison_of_frozen_samples(tmp_path: Path) -> None:
    plan = to_comparison(read_suite(written(tmp_path)))
    assert list(plan.methods) == [
        "plain", "control", "paper+one.asked", "paper+one", "paper+two.asked", "paper+two",
        "short+one.asked", "short+one", "short+two.asked", "short+two",
    ]  # fmt: skip
    asked = plan.methods["short+two.asked"]
    assert (asked.method, asked.seeds) == ("pgkd", (4,))
    assert asked.settings == {"teacher": {"spec": "openai:b", "prompt": "mine/short.j2"}}
    assert plan.methods["control"].of == "paper+one"
    assert (plan.methods["short+two"].method, plan.methods["short+two"].of) == ("frozen", "short+two.asked")


def test_one_teacher_needs_no_name(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, SUITE[: SUITE.index("teachers")]))
    assert list(to_comparison(suite, variants=["short"]).methods) == ["plain", "control", "short.asked", "short"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mine/short.j2", "other/paper.j2", "two variants 'paper'"),
        ("mine/short.j2", "mine/plain.j2", "'plain' means something else"),
        ("variants: [paper, mine/short.j2]", "", "variants"),
        ("one:", "one two:", "becomes a folder"),
        ("variants", "variant", "unknown setting 'variant' .closest: 'variants'."),
    ],
)
def test_what_is_wrong_in_a_suite_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_suite(written(tmp_path, SUITE.replace(old, new)))
    with pytest.raises(ConfigError, match="no variant 'papr'"):
        to_comparison(read_suite(written(tmp_path)), variants=["papr"])


@pytest.mark.parametrize("file", sorted((ROOT / "evals/prompts").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_suites_of_the_project_can_be_read(file: Path) -> None:
    assert to_comparison(read_suite(file)).hours


def test_dots_belong_to_the_name_of_a_variant_and_not_to_that_of_a_file(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, SUITE.replace("paper, mine/short.j2", "v1.1, v1.2, mine/v2.0.j2")))
    assert [name for name in to_comparison(suite).methods if name.endswith("+one")] == [
        "v1.1+one",
        "v1.2+one",
        "v2.0+one",
    ]
    with pytest.raises(ConfigError, match=r"is about teacher\.spec"):
        to_comparison(suite, overrides={"teacher": {"spec": "openai:c"}})


def test_novelty_is_the_distance_to_the_nearest_known_text() -> None:
    known = ["lost my card", "what is the fee"]
    assert novelty(["Lost  my card"], known) == 0  # case and white space do not matter
    assert novelty(["zzzz", "lost my card"], known) == pytest.approx(0.5)
    near, far = novelty(["lost my cards"], known), novelty(["my dog ate it"], known)
    assert near is not None and far is not None and near < 0.1 < far
    assert novelty([], known) is None


def test_evenness_is_the_entropy_over_classes() -> None:
    assert evenness(["a", "b", "c", "a", "b", "c"], 3) == pytest.approx(1)
    assert evenness(["a", "b"], 77) == pytest.approx(1)  # two samples can have two classes at most
    assert evenness(["a"] * 5, 3) == 0
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert evenness(["a", "a", "a", "b"], 2) == pytest.approx(expected)
    assert evenness(["a"], 3) is None and evenness([], 3) is None


def test_aim_is_above_0_where_weak_classes_got_more() -> None:
    classes = [
        ClassMetrics("weak", 0, 0, 0.2, 100),
        ClassMetrics("strong", 0, 0, 0.8, 100),
        ClassMetrics("new", 0, 0, 0, 0),
    ]
    at_weak, at_strong, at_new = aim(["weak"] * 3, classes), aim(["strong"], classes), aim(["new"], classes)
    assert at_weak is not None and at_strong is not None and at_weak > 0.2 and at_strong < -0.2
    assert at_new == pytest.approx(0)  # nothing is known of it
    assert aim([], classes) is None


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no finished run"):
        read_teaching(tmp_path)


def result(variant: str, accuracy: float | None, rate: float | None = 1.0) -> dict[str, Any]:
    return {
        "dataset": "d",
        "variant": variant,
        "teacher": "",
        "teaching": None if rate is None else {"parse_rate": rate, "accept_rate": None},
        "students": {} if accuracy is None else {"accuracy": {"mean": accuracy}},
    }


def test_the_gate_names_what_is_lower_or_missing(tmp_path: Path) -> None:
    before = {"prompts": [result("a", 0.8), result("b", 0.8), result("c", 0.8), result("elsewhere", 0.9)]}
    now = {"prompts": [result("a", 0.795), result("b", 0.78, 0.9), result("c", None, None), result("new", 0.1)]}
    assert losses_against(before, now, 0.01) == [
        "d, b: parse rate 0.900, 1.000 before",
        "d, b: accuracy 0.780, 0.800 before",
        "d, c: parse rate was not measured, 1.000 before",
        "d, c: accuracy was not measured, 0.800 before",
    ]
    assert losses_against(now, before, 0) == []  # better, or not measured then
    with pytest.raises(ConfigError, match="have no dataset"):
        losses_against(before, {"prompts": [result("new", 0.1)]}, 0)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(before), encoding="utf-8")
    assert read_baseline(file) == before
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no results\.json of"):
        read_baseline(file)
