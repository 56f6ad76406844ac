"""What the pages say of runs in every state, whoever wrote their texts, and how fast."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pgkd_agent.workbench.listing import (
    DAMAGED,
    HARMED,
    HELPED,
    NOT_ENDED,
    NOT_TESTED,
    PLAIN,
    UNCLEAR,
    line_of,
    runs_in,
)
from tests.unit.workbench.conftest import OWN, Client
from tests.unit.workbench.made import WORDS, make_run

PAGES = ("overview", "samples", "mistakes", "confusion", "calls")


def test_every_run_is_listed_with_what_came_of_it(made: Path, client: Client) -> None:
    lines = {name: line_of(name, path) for name, path in runs_in(made).items()}
    assert {name: line.effect for name, line in lines.items()} == {"helped": HELPED, "harmed": HARMED}
    line, result = lines["helped"], json.loads((made / "helped" / "result.json").read_text())
    before, after = (result["test"][when]["report"] for when in ("before", "after"))
    assert line.before == (before["accuracy"], before["macro_f1"])
    assert line.after == (after["accuracy"], after["macro_f1"])
    assert line.gain and line.gain.low == result["test"]["gain"]["macro_f1"]["low"] > 0
    assert (line.steps, line.method, line.teacher) == (2, "writes", "openai:gpt-4o-mini")
    assert line.cost == pytest.approx(2 * (1000 * 0.15 + 200 * 0.6) / 1e6)
    page = client(made).get("/").text
    assert all(f"{figure:.3f}" in page for figure in (*line.before, *line.after)) and f"{line.gain.low:+.3f}" in page
    buttons = re.search(r"<thead>(.*?)</thead>", page, re.DOTALL)
    assert buttons and buttons[1].count("<th") == buttons[1].count("<button") >= 12  # to sort by


@pytest.mark.parametrize(
    ("made_with", "effect"),
    [
        ({"skills": (0.9, 0.5)}, UNCLEAR),  # the plain student is kept
        ({"skills": (0.5, 0.9), "test_skills": (0.7, 0.7)}, UNCLEAR),
        ({"test_rows": 0}, NOT_TESTED),
        ({"skills": (0.9,)}, PLAIN),
        ({"steps_before_it_is_stopped": 1}, NOT_ENDED),
    ],
)
def test_a_run_that_is_no_success_is_shown_as_what_it_is(
    made_with: dict[str, Any], effect: str, tmp_path: Path, client: Client
) -> None:
    make_run(tmp_path / "runs" / "one", **made_with)
    browser = client(tmp_path / "runs")
    assert line_of("one", tmp_path / "runs" / "one").effect == effect and effect in browser.get("/").text
    page = browser.get("/overview?run=one")
    assert page.status_code == 200 and f">{effect}</span></h1>" in page.text and "<pre><code>pgkd " in page.text
    assert ("<svg" in page.text) == (effect != PLAIN)
    for name in PAGES:
        answer = browser.get(f"/{name}?run=one")
        has_no_rows = name == "mistakes" and effect in (NOT_TESTED, NOT_ENDED)
        assert answer.status_code == (422 if has_no_rows else 200), answer.text
        assert not has_no_rows or re.search("has no test rows|has not ended", answer.text)


DAMAGES = {
    "result.json": "{",
    "meta.json": '{"format": 1}',
    "steps.jsonl": '{"kd_step": 0}\n',
    "history.jsonl": "[]\n",
    "rejected.jsonl": '{"kd_step": 1}\n',
    "config.yaml": "student: 3",
    "predictions.jsonl": '{"before": "fruit"}\n',
    "calls.sqlite": "no database",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_a_sentence_and_no_failure(name: str, run: Path, client: Client) -> None:
    (run / name).write_text(DAMAGES[name], encoding="utf-8")
    browser = client(run.parent)
    listed = browser.get("/")
    assert listed.status_code == 200 and "?run=one" in listed.text
    assert (f">{DAMAGED}<" in listed.text) == (name in ("result.json", "meta.json", "config.yaml"))
    answers = [browser.get(f"/{page}?run=one") for page in PAGES]
    assert {answer.status_code for answer in answers} <= {200, 422}
    refused = [answer.text for answer in answers if answer.status_code == 422]
    assert refused and all(
        re.search("damaged|cannot be read|another version|should be a section", text) for text in refused
    )
    assert browser.get("/compare?run=one&other=one").status_code in (200, 422)


def test_half_a_run_is_listed(run: Path, client: Client) -> None:
    (run / "meta.json").unlink()
    page = client(run.parent).get("/").text
    assert DAMAGED in page and "expected a folder with a meta.json" in page


def test_runs_lie_in_folders_of_a_folder_or_are_named_themselves(run: Path, tmp_path: Path, client: Client) -> None:
    (tmp_path / "cells" / "topics" / "pgkd").mkdir(parents=True)
    run.rename(tmp_path / "cells" / "topics" / "pgkd" / "1-ab")
    assert list(runs_in(tmp_path)) == ["cells/topics/pgkd/1-ab"]
    assert list(runs_in(tmp_path / "cells" / "topics" / "pgkd" / "1-ab")) == ["1-ab"]
    assert client(tmp_path).get("/samples", params={"run": "cells/topics/pgkd/1-ab"}).status_code == 200
    (tmp_path / "none").mkdir()
    assert "There is no run in this folder yet" in client(tmp_path / "none").get("/").text


@pytest.mark.parametrize("name", ["../outside", "..", ".", "", "one/../../outside", "/etc", "one/", "one\0", "ONE"])
def test_no_name_leads_out_of_the_folder(name: str, run: Path, tmp_path: Path, client: Client) -> None:
    make_run(tmp_path / "outside", skills=(0.5,))
    browser = client(run.parent)
    for page in (*PAGES, "compare", "call"):
        answer = browser.get(f"/{page}", params={"run": name, "other": "one", "number": 1})
        assert answer.status_code == 422 and "there is no run" in answer.text, page
    review = browser.post(
        "/review",
        params={"run": name},
        json={"number": 0, "action": "reject"},
        headers=OWN,
    )
    assert review.status_code == 422 and not list(tmp_path.rglob("review.jsonl"))


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 1234 * 7 }}\u202egnp\u2069\x1b[31mred\x07\x9b"


def test_hostile_texts_stay_texts_on_every_page(tmp_path: Path, client: Client) -> None:
    names = ("fruit", f"tools {HOSTILE}", "animals")
    make_run(
        tmp_path / "<b>&'\" %2f{{ 1234 * 7 }}",
        names,
        write=lambda step: [(f"{HOSTILE} {step}", "fruit"), (f"{HOSTILE} as label", HOSTILE), (HOSTILE * 99, "")],
        description=HOSTILE,
    )  # fmt: skip
    browser = client(tmp_path)
    ((name, path),) = runs_in(tmp_path).items()
    calls = {"run": name, "number": 1}
    filtered = {"run": name, "label": HOSTILE, "search": HOSTILE, "rule": HOSTILE, "step": HOSTILE, "kind": HOSTILE}
    answers = [
        browser.get("/"),
        *(browser.get(f"/{page}", params={"run": name}) for page in PAGES),
        *(browser.get(f"/{page}", params=filtered) for page in PAGES),
        browser.get("/call", params=calls),
        browser.get("/compare", params={"run": name, "other": name}),
        browser.get("/overview", params={"run": HOSTILE}),
        browser.get(f"/{quote(HOSTILE)}"),
    ]
    for answer in answers:
        assert answer.status_code in (200, 404, 422) and "<main" in answer.text
        assert not re.search(r"<(?!/?(?:script src=|script>))script|<img|<b>&|8638", answer.text)
        assert answer.text.count("<script") == 2 and not set(answer.text) & set("\u202e\u2069\x1b\x07\x9b\0")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert sum("alert(1)" in answer.text for answer in answers) > 6  # it is there, as text
    assert path.name in {file.name for file in tmp_path.iterdir()}


def test_nothing_is_loaded_from_elsewhere(made: Path, client: Client) -> None:
    browser = client(made)
    page = browser.get("/overview?run=helped").text
    own = re.findall(r'(?:src|href)="(/[a-z.]+)"', page)
    assert {*own} >= {"/page.css", "/workbench.css", "/page.js", "/workbench.js"}
    for path in {*own}:
        answer = browser.get(path)
        assert answer.status_code == 200 and "://" not in answer.text.replace("http://www.w3.org", ""), path
    assert not re.search(r'(?:src|href|action)="(?!/|#|data:,)', page)


def test_five_thousand_samples_of_353_classes_do_not_stall(tmp_path: Path, client: Client) -> None:
    names = [f"{one} {two} and {three}" for one in WORDS for two in WORDS for three in WORDS[:3]][:353]

    def write(step: int) -> list[tuple[str, str]]:
        """Every second one is once more what came before it, but for a sign."""
        texts = [
            f"{names[n % 353]} {n // 2 * 7919:x} {n // 2 * 104729 % 99991:x} {step}{'!' * (n % 2)}" for n in range(2500)
        ]
        return [(text, names[number % 353]) for number, text in enumerate(texts)]

    make_run(tmp_path / "wide", names, write=write, test_rows=3)
    browser = client(tmp_path)
    rejected = {"status": "rejected", "rule": "near_duplicate"}
    for page, more in (
        ("samples", {}),
        ("samples", rejected),
        ("samples", {"search": "parcel", "page": 9}),
        ("mistakes", {}),
        ("confusion", {}),
        ("calls", {}),
    ):
        started = time.perf_counter()
        answer = browser.get(f"/{page}", params={"run": "wide", **more})
        seconds = time.perf_counter() - started
        assert answer.status_code == 200 and seconds < 3, (page, more, seconds)  # about 0.1 on an idle machine
        assert len(answer.content) < 600_000
    page = browser.get("/samples?run=wide").text
    assert "of 5,000 samples" in page and page.count("<li ") == 50
    heat = browser.get("/confusion?run=wide").text
    assert "The 20 classes of the most frequent confusions, of 353" in heat and heat.count('class="right') == 2 * 20
    started = time.perf_counter()
    answer = browser.post("/review?run=wide", json={"number": 4999, "action": "reject"}, headers=OWN)
    assert answer.json()["decided"] == 1 and time.perf_counter() - started < 3
