"""report.html of real runs, in a real browser where there is one."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pgkd_agent import distill
from pgkd_agent.cli.main import app
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.pipeline import resume
from pgkd_agent.runs.observer import Observer
from pgkd_agent.runs.report import write_comparison, write_report
from pgkd_agent.testing import ScriptedChatModel
from pgkd_agent.types import Example, StepRecord
from tests.integration.chromium import dumped
from tests.integration.command_line import pgkd
from tests.integration.conftest import sentences, tiny_config
from tests.integration.openai_server import completion, serve

PLANTED = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TOOLS = f"tools {PLANTED}"


def with_planted_label(rows: list[Example]) -> list[Example]:
    return [replace(row, label=TOOLS) if row.label == "tools" else row for row in rows]


TRAIN, VALIDATION, TEST = (with_planted_label(sentences(*args)) for args in ((12, 0), (5, 1), (6, 2)))


def reply(number: int) -> str:
    samples = [
        {"text": f"{PLANTED} hammer and pliers for {number}", "label": TOOLS},
        {"text": f"mango and cherry under snow {number}", "label": "fruit"},
        {"text": f"a comet {number} {PLANTED}", "label": "space"},
        {"text": f"goat, horse and sheep at {number}", "label": "animals"},
    ]
    return json.dumps({"samples": samples})


@pytest.fixture
def config(tiny_student: Path) -> PGKDConfig:
    """A student that is better after each step, since it goes on from where it was."""
    return tiny_config(
        tiny_student, **{"student.restart": "continue", "student.max_epochs": 2, "student.learning_rate": 1e-3}
    )


@pytest.fixture
def run(config: PGKDConfig, tmp_path: Path) -> Path:
    with ScriptedChatModel([reply(1), reply(22)]) as teacher:
        distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_leaves_a_page_that_tells_it(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    result = json.loads((run / "result.json").read_text())
    assert f"{result['test']['before']['report']['accuracy']:.3f} → " in page
    gain = result["test"]["gain"]["accuracy"]
    before, after = (result["test"][name]["report"]["accuracy"] for name in ("before", "after"))
    assert gain["mean"] == pytest.approx(after - before) and f"{gain['low']:+.3f} to {gain['high']:+.3f}" in page
    assert "Kept the model of KD step" in page and "gain on rows that did not choose" in page
    assert "mango and cherry under snow 1" in page and "not in the taxonomy" in page
    assert "src=x" not in page.replace("&lt;img src=x", "")
    assert not re.search(r"(src|href)=.?https?:", page)  # nothing is loaded from elsewhere
    evidence = [json.loads(line) for line in (run / "evidence.jsonl").read_text().splitlines()]
    assert {row["kd_step"] for row in evidence} == {1, 2}
    with sqlite3.connect(run / "calls.sqlite") as calls:
        prompts = dict(calls.execute("SELECT kd_step, messages FROM calls"))
    calls.close()
    plain = [row for row in evidence if '"' not in row["text"]]  # others are escaped once more in the log
    assert len(plain) > 20 and all(row["text"] in prompts[row["kd_step"]] for row in plain)
    assert evidence[0]["text"] in page


def test_what_is_planted_stays_text_in_a_browser_and_tables_can_be_sorted_and_searched(
    run: Path, tmp_path: Path
) -> None:
    probe = """<script>
    const cells = () => [...document.querySelectorAll("#class-table tbody tr")].filter(row => !row.hidden)
      .map(row => row.cells[0].textContent);
    const seen = {title: document.title, images: document.images.length, all: cells()};
    document.querySelector("#class-table th button").click();
    seen.falling = cells();
    document.querySelector("#class-table th button").click();
    seen.rising = cells();
    const field = document.querySelector("input[data-filters]");
    field.value = "ANIM";
    field.dispatchEvent(new Event("input"));
    seen.found = cells();
    document.body.append(Object.assign(document.createElement("pre"), {id: "seen", textContent: JSON.stringify(seen)}));
    </script>"""
    page = (run / "report.html").read_text(encoding="utf-8")
    copy = tmp_path / "probed.html"
    copy.write_text(re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page) + probe, encoding="utf-8")
    shown = dumped(copy, tmp_path / "profile")
    found = re.search(r'<pre id="seen">(.*?)</pre>', shown, re.DOTALL)
    assert found
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert seen["title"] == "run: PGKD report" and seen["images"] == 0
    assert TOOLS in seen["all"] and len(seen["all"]) == 4
    assert seen["rising"] == sorted(seen["all"], key=str.lower) and seen["falling"] == seen["rising"][::-1]
    assert seen["found"] == ["animals"]


def test_its_own_script_runs_and_no_other(run: Path, tmp_path: Path) -> None:
    """The browser holds the script against its hash in the page: one that got past the escaping is not run."""
    page = run / "report.html"
    text = page.read_text(encoding="utf-8")
    click = "document.querySelector('#class-table th button').click();"
    page.write_text(text + f"<script>document.title = 'owned'; {click}</script>", encoding="utf-8")
    shown = dumped(page, tmp_path / "profile")
    assert '<html lang="en" class="live">' in shown
    assert "<title>run: PGKD report</title>" in shown and 'aria-sort="' not in shown


class _Stop(Observer):
    def on_step(self, record: StepRecord) -> None:
        if record.kd_step == 1:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_has_a_page_so_far(config: PGKDConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ScriptedChatModel([reply(1)]) as teacher, pytest.raises(KeyboardInterrupt):
        distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=run, observer=_Stop())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "has not ended: 2 models so far" in page and "under snow 1" in page
    with ScriptedChatModel([reply(22)]) as teacher:
        resume(run, teacher)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "has not ended" not in page and "under snow 22" in page
    before = (run / "report.html").stat().st_mtime_ns
    resume(run, ScriptedChatModel([]))
    assert (run / "report.html").stat().st_mtime_ns == before
    predictions = (run / "predictions.jsonl").read_bytes()
    (run / "report.html").unlink()  # as of a run from before there were pages, or killed before its last one
    (run / "predictions.jsonl").unlink()
    resume(run, ScriptedChatModel([]))
    assert "under snow 22" in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "predictions.jsonl").read_bytes() == predictions and predictions.count(b"\n") == len(TEST)


def test_a_page_that_cannot_be_made_ends_no_run(
    config: PGKDConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_run: Path) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("pgkd_agent.runs.recorder.write_report", broken)
    with ScriptedChatModel([reply(1), reply(22)]) as teacher, caplog.at_level("WARNING"):
        result = distill(TRAIN, VALIDATION, TEST, teacher=teacher, config=config, out=tmp_path / "run")
    assert len(result.training.steps) == 3 and "no report of" in caplog.text


def test_a_card_speaks_of_a_teacher_only_where_the_model_learned_from_one(config: PGKDConfig, tmp_path: Path) -> None:
    distill(TRAIN, VALIDATION, config=config, steps=0, out=tmp_path / "run")
    card = (tmp_path / "run" / "models" / "best" / "README.md").read_text(encoding="utf-8")
    assert "trained on labelled rows, by pgkd-agent" in card
    assert "LLM" not in card and "| teacher |" not in card and "| rows written by the teacher | 0 |" in card


def test_the_model_carries_its_card(run: Path) -> None:
    card = (run / "models" / "best" / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["pipeline_tag"] == "text-classification"
    result = json.loads((run / "result.json").read_text())
    assert f"| accuracy | {result['test']['before']['report']['accuracy']:.3f} |" in body
    assert "<script>" not in body and "&lt;script&gt;" in body  # hubs render a card's HTML
    rows = [line for line in body.splitlines() if line.startswith(("| fruit", "| tools", "| animals", "| weather"))]
    assert len(rows) == 4 and all(row.count("|") == 6 for row in rows)
    assert "ScriptedChatModel" in body.split("## Licence")[1]


def test_runs_side_by_side(run: Path, config: PGKDConfig, tmp_path: Path) -> None:
    with ScriptedChatModel([reply(3), reply(4)]) as teacher:
        distill(TRAIN, VALIDATION, teacher=teacher, config=config, out=tmp_path / "other <b>")
    done = CliRunner().invoke(
        app, ["report", str(run), str(tmp_path / "other <b>"), "--out", str(tmp_path / "both.html")]
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert "other &lt;b&gt;" in page and "24 test" in page and "20 validation" in page


def test_what_is_no_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run directory"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="two runs"):
        write_comparison([run, run], tmp_path / "both.html")
    assert not (tmp_path / "both.html").exists()
    with pytest.raises(ConfigError, match="is a folder"):
        write_report(run, tmp_path)
    for line, why in (("{", "damaged"), ('{"kd_step": 0, "is_best": true}', "damaged")):
        (run / "steps.jsonl").write_text(line + "\n", encoding="utf-8")
        with pytest.raises(StorageError, match=why):
            write_report(run)
    assert not list(run.glob("*.new"))


def test_a_single_model_has_no_before_and_after(config: PGKDConfig, tmp_path: Path) -> None:
    distill(TRAIN, VALIDATION, TEST, steps=0, config=config, out=tmp_path / "plain")
    page = (tmp_path / "plain" / "report.html").read_text(encoding="utf-8")
    assert "→" not in page.split("Confidence:")[0] and ">before<" not in page and "moved" not in page
    assert ">F1<" in page and "taught by" not in page and "Teacher and cost" not in page
    card = (tmp_path / "plain" / "models" / "best" / "README.md").read_text(encoding="utf-8")
    assert "| | this model |\n| --- | --- |\n| accuracy | 0." in card


HOSTILE = "\x1b[31mred\x1b[0m \u202egnp\u2069 [/bold] \x07bell\x9b"


def test_what_would_steer_a_terminal_or_turn_text_around_is_left_out(
    config: PGKDConfig, tiny_student: Path, tmp_path: Path
) -> None:
    label, long = f"tools {HOSTILE}", "x" * 300
    for name, per_class, seed in (("train", 12, 0), ("val", 5, 1), ("test", 6, 2)):
        rows = [
            replace(row, label={"tools": label, "fruit": long}.get(row.label, row.label))
            for row in sentences(per_class, seed)
        ]
        lines = [json.dumps({"text": f"{row.text} {HOSTILE}", "label": row.label}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sample = {"text": f"mango and cherry {HOSTILE} under snow", "label": label}
    quick = [f"--set=student.{pair}" for pair in ("learning_rate=0.003", "max_epochs=4", "restart=continue")]
    with serve(lambda _call, _body: completion(json.dumps({"samples": [sample]}))) as server:
        done = pgkd(
            "distill", *(part for name in ("train", "val", "test") for part in (f"--{name}", f"{name}.jsonl")),
            "--teacher", "openai:m", "--base-url", server.base_url, "--steps", "2", "--out", "run",
            "--student", tiny_student, "--set", "pgkd.pgkd_batch_size=1", "--set", "teacher.structured=text", *quick,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page, card = (
        Path("run/report.html").read_text(encoding="utf-8"),
        Path("run/models/best/README.md").read_text("utf-8"),
    )
    evaluated = pgkd("evaluate", "run/models/best", "test.jsonl")
    refused = pgkd("distill", "--train", f"no{HOSTILE}.jsonl")
    for text in (done.stdout, done.stderr, page, card, evaluated.stdout, refused.stderr):
        assert not set(text) & {"\x1b", "\u202e", "\u2069", "\x07", "\x9b"}
    assert "tools red gnp [/bold] bell" in page and "tools red gnp [/bold] bell" in evaluated.stdout
