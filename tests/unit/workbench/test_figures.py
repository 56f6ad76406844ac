"""Mistakes, confusions, calls and comparisons say what the run's files say."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from pgkd_agent.errors import DataError
from pgkd_agent.runs.report.story import read_story
from pgkd_agent.runs.stored import read_run
from pgkd_agent.types import Confusion, Evaluation
from pgkd_agent.workbench.calls import read_calls, written_in
from pgkd_agent.workbench.comparing import compare
from pgkd_agent.workbench.confusion import heat_map, most_confused
from pgkd_agent.workbench.filters import CallFilters, MistakeFilters, Page
from pgkd_agent.workbench.mistakes import BROKEN, FIXED, RIGHT, STILL_WRONG, filtered, read_test_rows
from tests.unit.builders import report
from tests.unit.workbench.conftest import Client
from tests.unit.workbench.made import make_run


def test_mistakes_add_up_to_what_the_run_reports(made: Path) -> None:
    rows = read_test_rows(made / "helped")
    kinds = Counter(row.kind for row in rows)
    test = json.loads((made / "helped" / "result.json").read_text())["test"]
    wrong = {when: round(len(rows) * (1 - test[when]["report"]["accuracy"])) for when in ("before", "after")}
    assert kinds[FIXED] + kinds[STILL_WRONG] == wrong["before"] and kinds[BROKEN] + kinds[STILL_WRONG] == wrong["after"]
    assert len(filtered(rows, MistakeFilters(run="x"))) == len(rows) - kinds[RIGHT]
    for kind in (FIXED, BROKEN, STILL_WRONG):
        assert len(filtered(rows, MistakeFilters(run="x", kind=kind))) == kinds[kind]
    of_class = filtered(rows, MistakeFilters(run="x", label="fruit", search="parcel"))
    assert of_class and all(row.gold == "fruit" and "parcel" in row.text for row in of_class)


@pytest.mark.parametrize("model", ["before", "after"])
def test_a_cell_of_the_heat_map_has_the_rows_that_it_leads_to(model: str, made: Path) -> None:
    story, rows = read_story(made / "helped"), read_test_rows(made / "helped")
    evaluation = story.before if model == "before" else story.after
    assert evaluation
    shown = heat_map("", model, evaluation, [row.label for row in evaluation.report.classes])
    for gold, cells, wrong in shown.rows:
        assert wrong == sum(cell.count for cell in cells if not cell.is_right)
        for cell in cells:
            filters = MistakeFilters(run="x", label=gold, taken_for=cell.predicted, model=model)
            assert len(filtered(rows, filters)) == cell.count
            assert (cell.level == 0) == (cell.count == 0) and cell.level <= 6


def test_a_class_of_which_no_row_is_right_is_flagged(tmp_path: Path, client: Client) -> None:
    make_run(tmp_path / "runs" / "lost", skills=(0.0, 0.0), test_rows=3)
    page = client(tmp_path / "runs").get("/confusion?run=lost").text
    assert page.count('class="lost"') == 4 and "4 classes have F1 0" in page


def test_of_many_classes_those_that_are_taken_for_each_other_are_shown() -> None:
    names = [f"c{number:02}" for number in range(30)]
    rows = report(**{name: (0.5, 9) for name in names})
    pairs = [Confusion(names[n], names[29 - n], 30 - n) for n in range(15)]
    before, after = Evaluation(1.0, rows, tuple(pairs)), Evaluation(1.0, rows, (Confusion("c14", "c13", 90),))
    shown = most_confused(before, after)
    assert shown == [name for name in names if name in {"c13", "c14"} or int(name[1:]) < 9 or int(name[1:]) > 20]
    assert most_confused(Evaluation(0.1, rows), Evaluation(0.1, rows)) == []


def test_a_run_without_predictions_says_how_to_have_them(run: Path, client: Client) -> None:
    (run / "predictions.jsonl").unlink()
    answer = client(run.parent).get("/mistakes?run=one")
    assert answer.status_code == 422 and "Once resumed, it has them" in answer.text
    assert 'href="/samples?run=one"' in answer.text  # the way to the other pages
    assert client(run.parent).get("/confusion?run=one").status_code == 200


def test_calls_are_shown_with_prompt_reply_price_and_what_became_of_the_samples(run: Path, client: Client) -> None:
    browser = client(run.parent)
    page = browser.get("/calls?run=one").text
    assert page.count(">Call ") == 2 and page.count(">0.0003<") == 2 and ">1000<" in page
    call = browser.get("/call?run=one&number=2").text
    assert "You write training texts." in call and "Messages to a shop." in call and "← Call 1" in call
    assert "rejected: near_duplicate" in call and "rejected: label" in call and call.count(">accepted<") == 1
    assert browser.get("/call?run=one&number=3").status_code == 422
    found, every = read_calls(run, CallFilters(run="one", step="2"), None)
    assert [call["id"] for call in found] == [2] and len(every) == 2 and every[0]["cost"] is None
    of_another = {"reply": '{"text": "x y z", "label": "a"}', "kd_step": 1, "request_index": 0}
    assert {written.fate for written in written_in(run, of_another)} == {"not in this step"}


@pytest.mark.parametrize(
    ("wanted", "count"), [("spaceship of step 2", 1), ("training TEXTS", 2), ("%", 0), ("_", 0), ('"te', 2)]
)
def test_prompts_and_replies_are_searched_as_they_are_written(wanted: str, count: int, run: Path) -> None:
    assert len(read_calls(run, CallFilters(run="one", search=wanted), None)[0]) == count


def test_looking_leaves_the_log_as_it_is(run: Path, client: Client) -> None:
    before = (run / "calls.sqlite").read_bytes()
    with closing(sqlite3.connect(run / "calls.sqlite")) as log:
        log.execute("BEGIN IMMEDIATE")  # as a run does that works on it
        assert client(run.parent).get("/calls?run=one").status_code == 200
    assert (run / "calls.sqlite").read_bytes() == before
    (run / "calls.sqlite").unlink()
    assert "No LLM was asked" in client(run.parent).get("/calls?run=one").text
    assert not (run / "calls.sqlite").exists()


def test_two_runs_differ_by_their_figures_and_settings(made: Path, client: Client) -> None:
    paths = made / "helped", made / "harmed"
    helped, harmed = ((path, read_run(path)) for path in paths)
    comparison = compare(helped, harmed)
    after = [json.loads((path / "result.json").read_text())["test"]["after"]["report"] for path in paths]
    for line, name in zip(comparison.differences, ("accuracy", "macro_f1", "weighted_f1"), strict=True):
        assert (line.first, line.second) == pytest.approx((after[0][name], after[1][name]))
        assert line.gain.mean == pytest.approx(line.second - line.first) and line.gain.high < 0
    balance = len(comparison.second_only) - len(comparison.first_only)
    assert balance / comparison.rows == pytest.approx(comparison.differences[0].gain.mean)
    assert [key for key, *_ in comparison.settings] == ["student.max_epochs"]
    page = client(made).get("/compare?run=helped&other=harmed").text
    assert f"{comparison.differences[0].gain.low:+.3f}" in page and "student.max_epochs" in page


def test_the_order_of_the_rows_does_not_matter(made: Path, run: Path) -> None:
    (run / "checksums.jsonl").unlink()
    for name in ("test.jsonl", "predictions.jsonl"):
        lines = (run / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (run / name).write_text("".join(reversed(lines)), encoding="utf-8")
    comparison = compare((made / "helped", read_run(made / "helped")), (run, read_run(run)))
    assert comparison.first_only == comparison.second_only == [] and comparison.differences[0].gain.high == 0


def test_runs_on_other_rows_or_classes_are_not_compared(made: Path, run: Path, client: Client) -> None:
    make_run(run.parent / "other", test_rows=7)
    answer = client(run.parent).get("/compare?run=one&other=other")
    assert answer.status_code == 422 and re.search("not the same: 80 and 28, of which 28 are in both", answer.text)
    meta = json.loads((run / "meta.json").read_text())
    meta["taxonomy"].append({"name": "space", "description": ""})
    (run / "checksums.jsonl").unlink()
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(DataError, match="The classes are not the same"):
        compare((made / "helped", read_run(made / "helped")), (run, read_run(run)))


@pytest.mark.parametrize(("asked", "shown", "rows"), [(1, 1, 50), (3, 3, 20), (99, 3, 20)])
def test_a_page_beyond_the_last_is_the_last(asked: int, shown: int, rows: int) -> None:
    page = Page.cut(range(120), asked, 500)
    assert (page.number, page.pages, len(page.rows), page.found, page.of) == (shown, 3, rows, 120, 500)
