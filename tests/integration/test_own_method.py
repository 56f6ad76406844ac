"""A method from outside the package: one record with an option and a setting that it reads, in a whole comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.compare import Grid, fill, lines, read_comparison
from pgkd_agent.experiments.methods import METHODS, Method, Options, Outcome, Setting, register_method
from pgkd_agent.experiments.methods.method import Count
from pgkd_agent.types import label_names

RUNS: list[str] = []


class GuessOptions(Options):
    nth: Count
    """The class to name, from 1."""
    spelling: str = "lower"


def guess(setting: Setting, options: GuessOptions) -> Outcome:
    """One class for as many rows as `guardrails.near_duplicate_ratio` says, and the first class for the others."""
    RUNS.append(f"seed {setting.config.seed}")
    names, most = label_names(setting.task.taxonomy), setting.config.guardrails.near_duplicate_ratio
    found = [options.nth - 1 if number < most else 0 for number in range(len(setting.task.test))]
    return Outcome(tuple(names[number] for number in found), rows=len(setting.task.train))


GUESS = Method("guess", guess, GuessOptions, ("guardrails",), ignores=("guardrails.verify",))


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "guess", GUESS)  # goes again afterwards
    register_method(GUESS)
    RUNS.clear()


def filled(data: Path, out: Path, options: str = "{nth: 2}", settings: str = "{}", **more: bool) -> Grid:
    file = data / "plan.yaml"
    file.write_text(
        f"seeds: [1, 2]\nbaseline: first\nsettings: {settings}\ndatasets: {{topics: {{}}}}\n"
        f"methods: {{first: {{method: guess, options: {{nth: 1}}}}, guess: {{options: {options}}}}}\n",
        encoding="utf-8",
    )
    return fill(read_comparison(file), data, out, **more)


def test_it_is_compared_like_any_other_and_its_cells_are_kept_by_what_it_reads(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    grid = filled(data, out)
    assert not grid.failures and len(RUNS) == 4
    plan = read_comparison(data / "plan.yaml")
    first, second = lines(plan, grid)
    assert first.entry == "first" and second.metrics["accuracy"].mean == pytest.approx(0.25)
    assert {cell.predicted for cell in grid.done if cell.entry == "guess"} == {(1,) * 20}
    assert all(cell.seconds > 0 for cell in grid.done)  # which a method need not measure
    not_read = "{student: {max_epochs: 2}, guardrails: {verify: true}, teacher: {temperature: 0.1}}"
    assert filled(data, out, settings=not_read).done == grid.done and len(RUNS) == 4
    identity = json.loads(next((out / "cells" / "topics" / "guess").glob("1-*.json")).read_text())["identity"]
    assert set(identity["config"]) == {"seed", "data", "guardrails"} and identity["prompt_sha256"] is None
    assert set(identity["config"]["guardrails"]) == {"near_duplicate_ratio"}
    other = filled(data, out, settings="{guardrails: {near_duplicate_ratio: 3}}").done
    assert other[1].predicted == (1, 1, 1, *[0] * 17) and len(RUNS) == 8
    assert filled(data, out, "{nth: 3}").done[1].predicted == (2,) * 20 and len(RUNS) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{nth: 0}", "options of method 'guess': nth: input should be greater than or equal to 1, found 0"),
        ("{nth: 1, nht: 2}", r"options of method 'guess': unknown setting 'nht' \(there are: nth, spelling\)"),
        ("{}", "options of method 'guess': nth: field required"),
        ("{nth: 1, spelling: 3}", "options of method 'guess': spelling: input should be text, found 3"),
    ],
)
def test_its_options_are_checked_by_its_model_before_anything_runs(
    tmp_path: Path, data: Path, options: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        filled(data, tmp_path / "out", options)
    assert not RUNS and not (tmp_path / "out").exists()


def test_a_record_that_reads_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method 'odd' reads 'guardrial'; sections of the settings are seed, data"):
        register_method(Method("odd", guess, GuessOptions, ("student", "guardrial")))
    with pytest.raises(ConfigError, match=r"method 'odd' ignores 'student\.soft_label', which is no setting"):
        register_method(Method("odd", guess, GuessOptions, ("student",), ignores=("student.soft_label",)))
    assert "odd" not in METHODS
