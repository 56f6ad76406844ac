"""A suite of prompts: two variants, real students, an LLM behind a loopback server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.command_line import pgkd
from tests.integration.openai_server import Answer, OpenAIServer, completion, failure, serve
from tests.integration.test_compare import plan_of
from tests.integration.test_labelling import topic_in

TEMPLATE = """Human:
{{ classification_report }} {{ few_shot | json }} {{ taxonomy | json }} {{ correct | json }}
{{ misclassified | json }} {{ hard_negatives | json }} Write NUMBER {{ num_samples }} samples. WORDS
"""


def answers(call: int, body: dict[str, Any]) -> Answer:
    """Good samples for one variant; for the other a copy of a shown row, a wrong label, and something unreadable."""
    asked = json.dumps(body["messages"])
    if "NUMBER" not in asked:  # a text to be labelled
        return completion(json.dumps({"class_label": "fruit"}))
    if "careless" in asked:
        rows = [
            {"text": "a new planet", "label": "space"},
            {"label": "fruit"},
            {"text": "an old pear", "label": "fruit"},
        ]
    else:
        rows = [{"text": "the sour lemon of Rome", "label": "fruit"}, {"text": "a goat at noon", "label": "animals"}]
    return completion(json.dumps({"samples": rows}))


@pytest.fixture
def suite(tmp_path: Path, tiny_student: Path) -> Path:
    for name in ("careful", "careless"):
        (tmp_path / f"{name}.j2").write_text(TEMPLATE.replace("WORDS", name), encoding="utf-8")
    settings = json.loads(plan_of(tiny_student, None).model_dump_json())["settings"]
    del settings["teacher"]["base_url"], settings["teacher"]["prompt"]
    settings["pgkd"]["num_kd_steps"] = 1
    content = {
        "seeds": [1, 2],
        "settings": settings,
        "datasets": {"topics": {}},
        "variants": [str(tmp_path / f"{name}.j2") for name in ("careful", "careless")],
        "verify": True,
    }
    file = tmp_path / "suite.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def evaluate(suite: Path, out: Path, data: Path, server: OpenAIServer, *more: Any) -> Any:
    base_url = f"teacher.base_url={server.base_url}"
    return pgkd("eval", "prompts", suite, "--data", data, "--out", out, "--set", base_url, *more)


def results_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "results.json").read_text(encoding="utf-8")))


def test_variants_are_compared_by_what_was_written_and_what_students_make_of_it(
    tmp_path: Path,
    suite: Path,
    data: Path,
) -> None:
    out = tmp_path / "out"
    with serve(answers) as server:
        done = evaluate(suite, out, data, server)
        assert done.returncode == 0, done.stderr
        assert (
            len(server.requests) == 3 + 3
        )  # a request, one and what it lacked, and a verification of each accepted sample
        careful, careless = results_of(out)["prompts"]
        teaching = careful["teaching"]
        assert (teaching["asked"], teaching["parsed"], teaching["malformed"], teaching["accepted"]) == (2, 2, 0, 2)
        assert teaching["parse_rate"] == 1 and teaching["evenness"] == 1 and careful["agreement"] == 0.5
        assert 0 < teaching["novelty"] < 1 and teaching["requests"] == 1
        teaching = careless["teaching"]
        assert (teaching["parsed"], teaching["malformed"], teaching["valid"], teaching["accepted"]) == (4, 2, 2, 1)
        assert teaching["rejected"] == {"label": 2, "duplicate": 1} and teaching["parse_rate"] == 1
        assert careless["agreement"] == 1 and teaching["evenness"] is None
        for result in (careful, careless):
            assert result["students"]["accuracy"]["count"] == 2 and not result["failures"]
            assert result["differences"]["accuracy"]["low"] <= result["differences"]["accuracy"]["high"]
        assert "### topics" in done.stdout and "| plain student | 0." in done.stdout
        assert "label 2, duplicate 1" in done.stdout and "| control: as many real rows again | 0." in done.stdout
        before = results_of(out)
        again = evaluate(suite, out, data, server)
        assert again.returncode == 0 and len(server.requests) == 6 and results_of(out) == before

    elsewhere = tmp_path / "elsewhere"  # what was recorded: replies and what was accepted; no student, no server
    shutil.copytree(out / "cells" / "topics" / "pgkd", elsewhere / "cells" / "topics" / "pgkd",
                    ignore=shutil.ignore_patterns("models"))  # fmt: skip
    alone = evaluate(suite, elsewhere, data, server)
    assert alone.returncode == 0, alone.stderr
    assert results_of(elsewhere)["prompts"] == before["prompts"]
    nothing = evaluate(suite, tmp_path / "nothing", data, server, "--recorded")
    assert nothing.returncode == 1 and "not run yet" in nothing.stdout
    assert results_of(tmp_path / "nothing")["prompts"][0]["teaching"] is None


def test_a_baseline_makes_it_a_gate(tmp_path: Path, suite: Path, data: Path) -> None:
    out = tmp_path / "out"
    with serve(answers) as server:
        assert evaluate(suite, out, data, server).returncode == 0
        baseline = tmp_path / "baseline.json"
        record = results_of(out)
        record["prompts"][1]["teaching"]["accept_rate"] = 0.9
        baseline.write_text(json.dumps(record), encoding="utf-8")
        worse = evaluate(suite, out, data, server, "--baseline", baseline, "--fail-under", "0.1")
        assert worse.returncode == 1
        assert "careless: accept rate 0.500, 0.900 before" in " ".join(worse.stderr.split())
        assert evaluate(suite, out, data, server, "--baseline", baseline, "--fail-under", "0.5").returncode == 0
        assert evaluate(suite, out, data, server, "--baseline", out / "results.json").returncode == 2
        assert evaluate(suite, out, data, server, "--fail-under", "0.5").returncode == 2
        assert evaluate(suite, out, data, server, "--baseline", suite).returncode == 2


def test_a_reply_that_cannot_be_read_is_counted_and_a_verification_that_fails_costs_no_other_figure(
    tmp_path: Path, suite: Path, data: Path
) -> None:
    def mumbles(call: int, body: dict[str, Any]) -> Answer:
        if "NUMBER" not in json.dumps(body["messages"]):
            return failure(401, "no such key")
        return completion("Sorry, I would rather talk about it.") if call == 0 else answers(call, body)

    with serve(mumbles) as server:
        done = evaluate(suite, tmp_path / "out", data, server, "--variants", "careful")
        assert done.returncode == 1
        (careful,) = results_of(tmp_path / "out")["prompts"]
        assert careful["teaching"]["parse_rate"] == 0.5 and careful["teaching"]["accepted"] == 2
        assert careful["agreement"] is None and careful["failures"][0].startswith("verification: ")
        assert careful["students"]["accuracy"]["count"] == 2
        calls = len(server.requests)
        recorded = evaluate(suite, tmp_path / "out", data, server, "--variants", "careful", "--recorded")
        assert recorded.returncode == 0 and len(server.requests) == calls  # not asked, so not measured either
        assert "| careful | 2 | 50 %" in recorded.stdout


def test_what_failed_is_not_measured_and_not_0(tmp_path: Path, suite: Path, data: Path) -> None:
    def half(call: int, body: dict[str, Any]) -> Answer:
        return failure(401, "no such key") if "careless" in json.dumps(body["messages"]) else answers(call, body)

    with serve(half) as server:
        done = evaluate(suite, tmp_path / "out", data, server)
    assert done.returncode == 1
    careful, careless = results_of(tmp_path / "out")["prompts"]
    assert careful["students"]["accuracy"]["count"] == 2
    assert careless["teaching"] is None and careless["students"] == {} and careless["agreement"] is None
    assert "401" in careless["failures"][0] and "is not there" in careless["failures"][1]
    assert "| careless | - | -" in done.stdout


def labels(_call: int, body: dict[str, Any]) -> Answer:
    """Right, but where the prompt says "guess"; then always the same."""
    asked = json.dumps(body["messages"])
    return completion(
        json.dumps({"class_label": "fruit" if "guess" in asked else topic_in(body["messages"][-1]["content"])})
    )


def test_prompts_that_label_are_compared_on_rows_whose_label_they_are_not_shown(
    tmp_path: Path, suite: Path, data: Path
) -> None:
    guess = tmp_path / "guess.j2"
    guess.write_text("Human:\nguess {{ candidates | json }} {{ other }} {{ {'text': text} | json }}", encoding="utf-8")
    content = yaml.safe_load(suite.read_text(encoding="utf-8"))
    content |= {"purpose": "annotate", "variants": ["candidates", str(guess)], "verify": False}
    suite.write_text(yaml.safe_dump(content), encoding="utf-8")
    out = tmp_path / "out"
    with serve(labels) as server:
        done = evaluate(suite, out, data, server)
        assert done.returncode == 0, done.stderr
        good, bad = results_of(out)["prompts"]
        assert good["right"]["teacher"] == 1 and good["requests"] == len(server.requests) / 2
        assert bad["right"]["teacher"] < 0.5 and bad["over_first"]["mean"] < 0 and good["over_first"] is None
        assert [row["text"] for row in good["rows"]["1"]] == [row["text"] for row in bad["rows"]["1"]]
        assert [row["text"] for row in good["rows"]["1"]] != [row["text"] for row in good["rows"]["2"]], "by seed"
        assert "### topics" in done.stdout and "| candidates | 128 | 1.000 |" in done.stdout
        asked, before = len(server.requests), results_of(out)
        chosen = evaluate(suite, out, data, server, "--variants", "guess", "--baseline", tmp_path / "b.json")
        assert chosen.returncode == 2, "there is no such baseline"
        assert evaluate(suite, out, data, server, "--variants", "gues").returncode == 2
    baseline = tmp_path / "baseline.json"
    better = json.loads(json.dumps(before))
    better["prompts"][1]["right"]["teacher"] = 0.9
    baseline.write_text(json.dumps(better), encoding="utf-8")
    again = evaluate(suite, out, data, server, "--recorded", "--baseline", baseline)
    assert results_of(out)["prompts"] == before["prompts"] and len(server.requests) == asked
    assert again.returncode == 1 and "guess: right of teacher" in " ".join(again.stderr.split())
    nothing = evaluate(suite, tmp_path / "nothing", data, server, "--recorded")
    assert nothing.returncode == 1 and "not run yet" in nothing.stdout


def test_what_failed_for_one_prompt_that_labels_leaves_the_others(tmp_path: Path, suite: Path, data: Path) -> None:
    content = yaml.safe_load(suite.read_text(encoding="utf-8"))
    content |= {"purpose": "annotate", "variants": ["candidates", "no_rows"], "verify": False, "seeds": [1]}
    suite.write_text(yaml.safe_dump(content), encoding="utf-8")

    def strict(call: int, body: dict[str, Any]) -> Answer:
        is_first = "Labelled texts" in json.dumps(body["messages"])
        return failure(401, "no such key") if is_first else labels(call, body)

    with serve(strict) as server:
        done = evaluate(suite, tmp_path / "out", data, server)
    assert done.returncode == 1 and "topics, candidates, seed 1:" in done.stdout
    first, second = results_of(tmp_path / "out")["prompts"]
    assert not first["rows"] and first["right"] == {} and second["right"]["teacher"] == 1
    content |= {"verify": True}
    suite.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert evaluate(suite, tmp_path / "out", data, server).returncode == 2
