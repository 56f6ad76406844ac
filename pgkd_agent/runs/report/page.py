"""Render the pages. Texts and labels are escaped wherever they stand: they come from data and from an LLM. Control
characters and signs that turn the direction of text are left out.

As a second guard the pages let a browser run no script but their own, and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from pgkd_agent.embedded import MODELS
from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.files import encoded, write_whole
from pgkd_agent.runs.report.chart import Chart, line_chart
from pgkd_agent.runs.report.story import Story, read_story
from pgkd_agent.text import counted, shorten, well_formed, without_controls

REPORT = "report.html"
CARD = "README.md"
COMPARISON = "comparison.html"
LONGEST_LIST = 500
"""Rows of a table of texts or confusions; a page with more is slow on a phone, and the run's files have them all."""
LONGEST_TEXT = 1000
"""Characters of a text."""


def write_report(run: Path, file: Path | None = None) -> Path:
    """Write the page of a run directory, also of a run that goes on or was killed.

    Args:
        file: None: `report.html` in it.
    Raises:
        ConfigError: It is no run directory.
        StorageError: It is a damaged one, or the disk refuses.
    """
    story = read_story(run)
    return _write(file or run / REPORT, "run.html.j2", story=story, charts=charts(story))


def write_comparison(runs: Sequence[Path], file: Path) -> Path:
    """Write a page that holds several runs side by side.

    Raises:
        ConfigError: Fewer than two runs, or the same one twice.
        StorageError: See `write_report`.
    """
    if len({run.resolve() for run in runs}) < max(len(runs), 2):
        raise ConfigError("a comparison needs two runs or more, each once")
    stories = [read_story(run) for run in runs]
    return _write(file, "comparison.html.j2", stories=stories, names=_names(runs), labels=_labels(stories))


def write_card(run: Path) -> Path | None:
    """Write the model card of a run's best model, as Hugging Face's hub shows it; None before there is a model.

    Raises:
        StorageError: See `write_report`.
    """
    folder = run / "models" / "best"
    if not folder.is_dir():
        return None
    story = read_story(run)
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        **_base_model(story.meta["student"]["name"]),
        "tags": ["text-classification", "knowledge-distillation", "pgkd"],
        "metrics": ["accuracy", "f1"],
    }
    written = sum(len(step.accepted) for step in story.steps if step.record.kd_step <= story.best_step)
    text = Markup(yaml.safe_dump(header, sort_keys=False, allow_unicode=True))
    return _write(folder / CARD, "card.md.j2", story=story, header=text, written=written)


def _base_model(student: str) -> dict[str, str]:
    """On the model hub; a folder of one's own has no name there."""
    if Path(student).exists():
        return {}
    return {"base_model": MODELS[student].hub_name if student in MODELS else student}


def charts(story: Story) -> list[Chart]:
    """Validation loss and macro F1 by step; none of a single model."""
    if len(story.steps) < 2:
        return []
    losses = [step.record.validation.loss for step in story.steps]
    scores = [step.record.validation.report.macro_f1 for step in story.steps]
    return [
        line_chart("Validation loss (nats)", losses, story.best_step),
        line_chart("Validation macro F1", scores, story.best_step),
    ]


def _names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [run.resolve().parts for run in runs]
    longest = max(map(len, parts))
    lengths = (n for n in range(1, longest + 1) if len({one[-n:] for one in parts}) == len(parts))
    length = next(lengths, longest)
    return ["/".join(one[-length:]) for one in parts]


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
    """
    Raises:
        ConfigError: The file is a folder.
        StorageError: What the page is made of is damaged, or the disk refuses.
    """
    if file.is_dir():
        raise ConfigError(f"{file} is a folder; name a file")
    environment = page_environment()
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = render(environment, template, str(file), script=Markup(script), script_hash=f"sha256-{digest}", **values)
    if not file.is_file() or file.read_bytes() != encoded(page):  # so that a replay changes nothing
        write_whole(file, page)
    return file


@cache
def page_environment(*packages: str) -> jinja2.Environment:
    """Templates of pages, in which everything is escaped; made once, since they take a while to compile.

    Args:
        packages: Whose folders `templates` come before that of the report, whose styles and parts they share.
    """
    places = [jinja2.PackageLoader(package, "templates") for package in (*packages, "pgkd_agent.runs.report")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(places),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signed": _signed,
        "cell": _cell,
        "short": _short,
        "sentence": _sentence,
        "counted": counted,
    }
    return environment


def render(environment: jinja2.Environment, template: str, what: str, **values: Any) -> str:
    """A page without control characters.

    Args:
        what: It is of, for the message.
    Raises:
        StorageError: What the page is made of is damaged.
    """
    try:
        page = environment.get_template(template).render(longest=LONGEST_LIST, **values)
    except (jinja2.TemplateError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise StorageError(
            f"no page can be made for {what}: the run's files are damaged ({type(error).__name__}: {error})"
        ) from error
    return without_controls(well_formed(page))


def _short(text: str) -> str:
    return shorten(text, LONGEST_TEXT)


def _sentence(text: str) -> str:
    """With a capital first letter, the rest as it is, and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def _cell(text: str) -> Markup:
    """For Markdown, also in a table: one line, without HTML."""
    return escape(" ".join(text.split())).replace("|", "\\|")


def _signed(value: float, digits: int = 3) -> str:
    """With its sign; no minus before a zero."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"
