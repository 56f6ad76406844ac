"""A person's word on samples: who may give it, where it is kept, and that the import takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pgkd_agent.errors import StorageError
from pgkd_agent.files import read_lines
from pgkd_agent.runs.samples import prepare_retraining
from pgkd_agent.runs.stored import read_run
from pgkd_agent.workbench.filters import SampleFilters
from pgkd_agent.workbench.reviewing import REVIEW_FILE, filtered, matches_of, read_samples
from tests.unit.workbench.conftest import OWN, Client


def say(browser: TestClient, number: int, action: str, label: str = "", **headers: str) -> Any:
    body = {"number": number, "action": action, "label": label}
    return browser.post("/review?run=one", json=body, headers=headers or OWN)


def numbers(run: Path, **filters: str) -> list[int]:
    return [sample["number"] for sample in filtered(read_samples(run), SampleFilters(run="one", **filters))]


def test_what_is_accepted_is_what_the_import_takes(run: Path, client: Client) -> None:
    browser = client(run.parent)
    written = [sample["text"] for sample in read_samples(run)]
    accepted, rejected = numbers(run, status="accepted"), numbers(run, status="rejected")
    (of_no_class, *_), (copy, *_) = numbers(run, rule="label"), numbers(run, rule="held_out")
    assert say(browser, accepted[0], "reject").json() == {
        "label": "fruit", "status": "rejected", "reviewed": True, "decided": 1,
    }  # fmt: skip
    assert say(browser, accepted[1], "accept", "Tools").json()["label"] == "tools"  # as the import reads it
    assert say(browser, of_no_class, "accept", "weather").json()["decided"] == 3
    assert say(browser, copy, "accept").json()["decided"] == 4
    assert say(browser, copy, "undo").json() == {
        **say(browser, copy, "undo").json(),
        "status": "rejected",
        "decided": 3,
    }
    retraining = prepare_retraining(run, run / REVIEW_FILE)
    approved = {(sample.text, sample.label) for sample in retraining.teacher.samples}
    assert approved >= {(written[accepted[1]], "tools"), (written[of_no_class], "weather")}
    assert {text for text, _ in approved} == {written[n] for n in (*accepted[1:], of_no_class)}
    assert retraining.not_approved == len(rejected) and len(read_lines(run / REVIEW_FILE)) == len(written)
    page = browser.get("/samples?run=one&decided=yes").text
    assert page.count("data-reviewed>") == 3 and 'you have decided on <b id="decided">3</b>' in page


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8001", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"user-agent": "no browser"},
        {"origin": "http://evil.example", "host": "evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:8001", "content-type": "text/plain"},
        {"origin": "http://127.0.0.1:8001", "content-type": "application/x-www-form-urlencoded"},
    ],
)
def test_no_other_page_can_write(headers: dict[str, str], run: Path, client: Client) -> None:
    answer = client(run.parent).post(
        "/review?run=one",
        content=json.dumps({"number": 0, "action": "reject"}),
        headers={"content-type": "application/json", **headers},
    )
    assert answer.status_code in (403, 422) and not (run / REVIEW_FILE).exists()
    assert "access-control-allow-origin" not in answer.headers


def test_another_name_of_the_machine_cannot_even_read(run: Path, client: Client) -> None:
    answer = client(run.parent).get("/samples?run=one", headers={"host": "evil.example"})
    assert answer.status_code == 403 and "ssh -L" in answer.json()["detail"]
    assert client(run.parent).get("/samples?run=one", headers={"host": "localhost:5"}).status_code == 200


def test_only_the_review_takes_anything_but_reading(run: Path, client: Client) -> None:
    browser = client(run.parent)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "POST"):
        for path in ("/", "/samples?run=one", "/overview?run=one"):
            assert browser.request(method, path, headers=OWN).status_code == 405
            assert browser.request(method, path).status_code == 403
    assert browser.post("/review?run=one", content=b"x" * 200_000, headers=OWN).status_code == 413


@pytest.mark.parametrize(
    ("number", "action", "label", "words"),
    [
        (99, "accept", "", "there is no sample 99"),
        (-1, "reject", "", "there is no sample -1"),
        (0, "accept", "space", "'space' is none of the run's classes"),
        (0, "delete", "", "action: Input should be"),
    ],
)
def test_what_cannot_be_decided_changes_nothing(
    number: int, action: str, label: str, words: str, run: Path, client: Client
) -> None:
    answer = say(client(run.parent), number, action, label)
    assert answer.status_code == 422 and words in answer.json()["detail"]
    assert not (run / REVIEW_FILE).exists()


def test_a_sample_of_no_class_needs_one(run: Path, client: Client) -> None:
    answer = say(client(run.parent), numbers(run, rule="label")[0], "accept")
    assert answer.status_code == 422 and "'space' is none of the run's classes; choose one" in answer.json()["detail"]


def test_a_review_goes_on_where_the_run_did(run: Path, client: Client) -> None:
    say(client(run.parent), 0, "reject")
    file = run / REVIEW_FILE
    first_step = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if '"kd_step": 1' in line]
    file.write_text("".join(first_step), encoding="utf-8")  # as it was while the run had one step
    assert [sample["reviewed"] for sample in read_samples(run)] == [True] + [False] * 11
    assert say(client(run.parent), 11, "accept", "fruit").json()["decided"] == 2


def test_a_review_of_other_samples_is_not_written_over(run: Path, client: Client) -> None:
    say(client(run.parent), 0, "reject")
    edited = (run / REVIEW_FILE).read_text(encoding="utf-8").replace("mango", "melon")
    (run / REVIEW_FILE).write_text(edited, encoding="utf-8")
    answer = say(client(run.parent), 1, "reject")
    assert answer.status_code == 422 and "is not of the samples of this run" in answer.json()["detail"]
    assert (run / REVIEW_FILE).read_text(encoding="utf-8") == edited
    with pytest.raises(StorageError, match="give it another name"):
        read_samples(run)


def test_filters_and_search_leave_what_they_say(run: Path) -> None:
    samples = read_samples(run)
    assert numbers(run, step="2") == [s["number"] for s in samples if s["kd_step"] == 2] != []
    assert numbers(run, label="fruit", status="accepted") == [0, 6]
    assert {samples[number]["rule"] for number in numbers(run, status="rejected")} >= {"held_out", "near_duplicate"}
    assert [samples[number]["text"] for number in numbers(run, search="  SPACEship ")] == [
        f"a spaceship of step {step}" for step in (1, 2)
    ]
    assert numbers(run, source="labelled") == [] and numbers(run, decided="yes") == []


def test_a_rejected_row_has_the_row_beside_it_that_it_repeats(run: Path) -> None:
    samples, stored = read_samples(run), read_run(run)
    found = matches_of(samples, run, stored)
    by_rule = {samples[number]["rule"]: (match, samples[number]) for number, match in found.items()}
    assert by_rule.keys() == {"prompt_copy", "near_duplicate", "held_out"}
    match, sample = by_rule["prompt_copy"]
    assert (match.text, match.where, match.likeness) == (sample["text"], "a training row", 100)
    match, sample = by_rule["held_out"]
    assert (match.text, match.where) == (stored.task.test[0].text, "a test row") and sample["text"].startswith(
        match.text
    )
    match, sample = by_rule["near_duplicate"]
    assert match.text == stored.task.train[1].text and f"{match.likeness:.0f} % alike" in sample["reason"]
    assert not {number for number in found if samples[number]["rule"] in ("", "label")}
