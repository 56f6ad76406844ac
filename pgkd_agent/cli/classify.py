"""`pgkd classify`: a saved model at work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped, refuse
from pgkd_agent.errors import ConfigError
from pgkd_agent.files import as_line
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.config import PGKDConfig
    from pgkd_agent.student.classifier import Prediction, StudentClassifier

CHUNK = 2048
"""Texts read, sorted by length and classified at a time; bounds the memory for any input."""

BLANK: dict[str, Any] = {"label": None, "confidence": None, "probabilities": {}}
"""Said of a text without any sign: it keeps its place, and nobody is asked about it."""

CASCADE_CHUNK = 64
"""The same where an LLM may be asked: what it said is written soon."""


@grouped
def classify(
    context: typer.Context,
    *,
    model: options.Model,
    file: Annotated[Path, typer.Argument(help="Texts (CSV, TSV, JSON, JSONL, Parquet, TXT), or - for lines of stdin.")],
    text_column: options.TextColumn = None,
    inference: options.Inference,
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Give texts below it no label, or ask --teacher.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="provider:model, asked about texts below --min-confidence.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Taxonomy with descriptions for the teacher.", show_default="the model's")
    ] = None,
    zero_shot: options.ZeroShot,
    caps: options.Caps,
    sources: options.Sources,
    calls: Annotated[
        Path | None,
        typer.Option(
            help="SQLite file that keeps what the LLM said: the same command goes on with it, caps count all of it."
        ),
    ] = None,
) -> None:
    """Print a JSON line per text: text, label, confidence and the probability of every label.

    One for each line or row, in their order; a blank text has neither label nor confidence (null). Files of any size:
    texts are read, and results written, some thousands at a time. With --min-confidence a text that the model is less
    sure of gets no label (null), or with --teacher that of an LLM, 64 texts at a time; `source` says whose it is, and
    the last line of stderr how often it was asked and what that took. Exit code 1 where it could not be asked about
    some of them.
    """
    from pgkd_agent.data import stream_texts

    if teacher is None:
        refuse(context, options.NO_TEACHER, "labels", options.ZeroShot, options.Caps, options.Sources, "calls")
    if teacher and min_confidence is None:
        raise ConfigError("--teacher is asked about texts below --min-confidence; give both")
    texts = stream_texts(sys.stdin.buffer if str(file) == "-" else file, text_column)
    classifier = inference.load(model)
    if teacher is None:
        _print_rows(texts, CHUNK, lambda chunk: _rows_of(classifier.classify(chunk), min_confidence))
        terminal.warn(classifier.note)
        return
    settings = options.settings_of(zero_shot, caps, sources, more={"teacher.spec": teacher})
    _print_cascade(texts, classifier, min_confidence or 0.0, settings, labels, calls)


def _rows_of(predictions: list[Prediction], min_confidence: float | None) -> list[dict[str, Any]]:
    return [{"label": prediction.label_if(min_confidence or 0.0), **_figures(prediction)} for prediction in predictions]


def _figures(prediction: Prediction) -> dict[str, Any]:
    return {
        "confidence": round(prediction.confidence, 6),
        "probabilities": {name: round(p, 6) for name, p in prediction.probabilities.items()},
    }


def _print_rows(texts: Iterator[str], size: int, classify: Callable[[list[str]], list[dict[str, Any]]]) -> None:
    """With a count on the way, where the lines go elsewhere than to the terminal."""
    from pgkd_agent.data.values import visible

    columns = (TextColumn("{task.completed} texts"), TimeElapsedColumn(), TextColumn("{task.fields[speed]}"))
    hidden = sys.stdout.isatty()
    with Progress(*columns, console=terminal.notes(), transient=True, disable=hidden) as progress:
        bar, blank = progress.add_task("", total=None, speed=""), 0
        while chunk := list(islice(texts, size)):
            seen = [text for text in chunk if visible(text)]
            blank += len(chunk) - len(seen)
            rows = iter(classify(seen))
            lines = ({"text": text, **(next(rows) if visible(text) else BLANK)} for text in chunk)
            typer.echo("".join(map(as_line, lines)), nl=False)
            progress.advance(bar, len(chunk))
            progress.update(bar, speed=f"{progress.tasks[0].speed or 0:.0f} texts/s")
    if blank:
        terminal.say(terminal.notes(), f"texts that are blank, and get no label (null): {blank}")


def _print_cascade(
    texts: Iterator[str],
    classifier: StudentClassifier,
    min_confidence: float,
    config: PGKDConfig,
    labels: Path | None,
    calls: Path | None,
) -> None:
    from pgkd_agent.answering.cascade import Cascade, open_llm
    from pgkd_agent.data import read_taxonomy
    from pgkd_agent.teacher.calls.prices import load_prices
    from pgkd_agent.types import TokenUsage, label_names

    taxonomy = read_taxonomy(labels) if labels else classifier.taxonomy
    if other := {*label_names(taxonomy)} ^ {*classifier.labels}:
        raise ConfigError(f"{labels} and the model differ in labels: {', '.join(sorted(other)[:5])}")
    prices = load_prices(config.teacher.prices)
    has_price = prices.cost(config.teacher.spec, TokenUsage()) is not None
    with open_llm(taxonomy, config, calls=calls) as llm:
        cascade = Cascade(classifier, llm, min_confidence)

        def classify(chunk: list[str]) -> list[dict[str, Any]]:
            return [
                {
                    "label": item.label,
                    "source": item.source,
                    **({"problem": item.problem} if item.problem else {}),
                    **_figures(item.student),
                }
                for item in cascade.classify(chunk)
            ]

        try:
            _print_rows(texts, CASCADE_CHUNK, classify)
        finally:
            terminal.warn(classifier.note)
            stats, spent = cascade.stats, llm.spent
            terminal.say(
                terminal.notes(),
                f"{stats.fallbacks} of {stats.texts} texts ({stats.fallback_share:.1%}) were below {min_confidence:g}; "
                f"{config.teacher.spec} named a class for {stats.fallbacks - stats.unresolved - stats.failed}, none "
                f"for {stats.unresolved}, and could not be asked about {stats.failed}: "
                f"{counted(spent.calls, 'call')}, {counted(spent.tokens, 'token')}, "
                f"{terminal.money(spent.cost if has_price else None, prices.currency)}",
            )
    if stats.failed:
        raise typer.Exit(1)
