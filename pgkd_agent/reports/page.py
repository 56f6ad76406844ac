"""Render the pages. Texts and labels are escaped wherever they stand: they come from data and from an LLM.

As a second guard the pages let a browser run no script but their own, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.reports.chart import Chart, line_chart
from pgkd_agent.reports.story import Story, read_story

REPORT = "report.html"
COMPARISON = "comparison.html"
LONGEST_LIST = 500
"""Rows of a table of texts or confusions; a page with more is slow on a phone, and the run's files have them all."""


def write_report(run: Path, file: Path | None = None) -> Path:
    """Write the page of a run directory, also of a run that goes on or was killed.

    Args:
        file: None: `report.html` in it.
    Raises:
        StorageError: It is no run directory, a damaged one, or the disk refuses.
    """
    story = read_story(run)
    return _write(file or run / REPORT, "run.html.j2", story=story, charts=_charts(story))


def write_comparison(runs: Sequence[Path], file: Path) -> Path:
    """Write a page that holds several runs side by side.

    Raises:
        ConfigError: Fewer than two runs, or the same one twice.
        StorageError: See `write_report`.
    """
    if len({run.resolve() for run in runs}) < max(len(runs), 2):
        raise ConfigError("a comparison needs two runs or more, each once")
    stories = [read_story(run) for run in runs]
    return _write(file, "comparison.html.j2", stories=stories, labels=_labels(stories))


def _charts(story: Story) -> list[Chart]:
    if not story.steps:
        return []
    losses = [step.record["validation"]["loss"] for step in story.steps]
    scores = [step.report["macro_f1"] for step in story.steps]
    return [
        line_chart("Validation loss (nats)", losses, story.best_step),
        line_chart("Validation macro F1", scores, story.best_step),
    ]


def _labels(stories: Sequence[Story]) -> list[tuple[str, list[float | None]]]:
    """F1 of each class in each run, None where it was not measured; the classes that differ most first."""
    by_run = [{row.label: row.after for row in story.class_changes()} for story in stories]
    labels = dict.fromkeys(label for scores in by_run for label in scores)
    rows = [(label, [scores.get(label) for scores in by_run]) for label in labels]

    def spread(row: tuple[str, list[float | None]]) -> float:
        known = [score for score in row[1] if score is not None]
        return max(known) - min(known) if known else -1.0

    return sorted(rows, key=lambda row: (-spread(row), row[0]))


def _write(file: Path, template: str, **values: Any) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pgkd_agent.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        longest=LONGEST_LIST, script=Markup(script), script_hash=f"sha256-{digest}", **values
    )
    fresh = file.with_name(file.name + ".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(page, encoding="utf-8", errors="replace")
        os.replace(fresh, file)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror or error}") from error
    return file


def _signed(value: float, digits: int = 3) -> str:
    """With its sign; no minus before a zero."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"
