"""`pgkd classify`: a saved model at work."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped, refuse
from pgkd_agent.cli.stopping import going_on
from pgkd_agent.errors import ConfigError
from pgkd_agent.files import as_line
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.answering.output import LabelledTable
    from pgkd_agent.config import PGKDConfig
    from pgkd_agent.data.formats import Record
    from pgkd_agent.student.classifier import Prediction, StudentClassifier

CHUNK = 2048
"""Texts read, sorted by length and classified at a time; bounds the memory for any input."""

BLANK: dict[str, Any] = {"label": None, "confidence": None}
"""Said of a text without any sign: it keeps its place, and nobody is asked about it."""

MAKE_THE_LABELS = (
    "text_column", "top", "all_", "min_confidence", "precision", "engine", "teacher", "prompt", "description", "set_",
)  # fmt: skip
"""Options that a table depends on: it is not gone on with under others."""

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
    top: Annotated[int, typer.Option(min=0, help="Also print the probabilities of so many likeliest labels.")] = 0,
    all_: Annotated[bool, typer.Option("--all", help="Also print the probability of every label.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="A new .csv, .tsv, .jsonl or .parquet file, with the columns of the input.")
    ] = None,
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
    """Print a JSON line per text: text, label and confidence; with --out make a table of it.

    One for each line or row, in their order; a blank text has neither label nor confidence (null). Files of any size:
    texts are read, and results written, some thousands at a time. A table has all columns of the input, and beside
    them predicted_label and confidence; the same command goes on with one that was stopped.

    With --min-confidence a text that the model is less sure of gets no label (null), or with --teacher that of an LLM,
    64 texts at a time; `source` says whose it is, and the last line of stderr how often it was asked and what that
    took. Exit code 1 where it could not be asked about some of them.
    """
    from pgkd_agent.data import stream_rows

    if teacher is None:
        refuse(context, options.NO_TEACHER, "labels", options.ZeroShot, options.Caps, options.Sources, "calls")
    if teacher and min_confidence is None:
        raise ConfigError("--teacher is asked about texts below --min-confidence; give both")
    if all_ and top:
        raise ConfigError("--all prints the probability of every label, --top of the likeliest; give one of them")
    if out and str(file) == "-":
        raise ConfigError("--out goes on where it was stopped, which standard input cannot; name a file")
    rows = stream_rows(sys.stdin.buffer if str(file) == "-" else file, text_column)
    classifier = inference.load(model)
    shown = len(classifier.labels) if all_ else top
    new = ["predicted_label", *(["source", "problem"] if teacher else []), "confidence"]
    with _written(out, file, [*new, "probabilities"] if shown else new, context) as written:
        rows = written.checked(rows)
        if teacher is None:
            _classify(rows, CHUNK, lambda chunk: _found(classifier.classify(chunk), min_confidence, shown), written)
            terminal.warn(classifier.note)
            return
        settings = options.settings_of(zero_shot, caps, sources, more={"teacher.spec": teacher})
        num_failed = _classify_with_llm(
            rows, classifier, min_confidence or 0.0, settings, labels, calls, shown, written
        )
    if num_failed:
        raise typer.Exit(1)


Rows = Iterator[tuple[str, "Record"]]
Found = dict[str, Any]


class _Lines:
    """Standard output."""

    num_rows = 0

    def checked(self, rows: Rows) -> Rows:
        return rows

    def write(self, rows: list[tuple[Record, str, Found]]) -> None:
        typer.echo("".join(as_line({"text": text, **found}) for _record, text, found in rows), nl=False)


class _Table:
    """A file."""

    def __init__(self, table: LabelledTable) -> None:
        self._table = table
        self.num_rows = table.num_rows

    def checked(self, rows: Rows) -> Rows:
        """The same, the first one looked at before anything is classified or asked."""
        first = list(islice(rows, 1))
        for _text, record in first:
            self._table.check(record)
        return chain(first, rows)

    def write(self, rows: list[tuple[Record, str, Found]]) -> None:
        self._table.write([(record, _named(found)) for record, _text, found in rows])


def _named(found: Found) -> Found:
    """As columns beside those of the input, which often has labels of its own."""
    return {"predicted_label" if name == "label" else name: value for name, value in found.items()}


@contextmanager
def _written(out: Path | None, file: Path, new: list[str], context: typer.Context) -> Iterator[_Lines | _Table]:
    """What takes the rows; a table is there in the end, or goes on with the next time."""
    if out is None:
        yield _Lines()
        return

    from pgkd_agent.answering.output import LabelledTable

    given = {name: str(context.params[name]) for name in MAKE_THE_LABELS}
    table = LabelledTable(out, _work(given, [file, *_files(context)]), new)
    try:
        with going_on(lambda: f"to go on: the same command again, with {out.name}.part in its place"):
            if table.num_rows:
                terminal.say(terminal.notes(), f"going on after {counted(table.num_rows, 'row')}")
            yield _Table(table)
            table.finish()
        terminal.say(terminal.notes(), f"{out}: {counted(table.num_rows, 'row')}")
    finally:
        table.close()


def _files(context: typer.Context) -> list[Path]:
    """That the labels depend on: of the model, and what the options name."""
    from pgkd_agent.student.pretrained import model_folder

    named = (context.params[name] for name in ("labels", "config", "prompt"))
    of_model = sorted(each for each in model_folder(Path(str(context.params["model"]))).iterdir() if each.is_file())
    return [*of_model, *(Path(str(name)) for name in named if name and Path(str(name)).is_file())]


def _work(given: dict[str, str], files: list[Path]) -> str:
    states = [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return hashlib.sha256(json.dumps([given, states]).encode()).hexdigest()


def _found(predictions: list[Prediction], min_confidence: float | None, shown: int) -> list[Found]:
    return [{"label": one.label_if(min_confidence or 0.0), **_figures(one, shown)} for one in predictions]


def _figures(prediction: Prediction, shown: int) -> Found:
    """
    Args:
        shown: Labels with their probabilities, likeliest first.
    """
    figures: Found = {"confidence": round(prediction.confidence, 6)}
    if shown:
        likeliest = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:shown]
        figures["probabilities"] = {name: round(probability, 6) for name, probability in likeliest}
    return figures


def _classify(rows: Rows, size: int, classify: Callable[[list[str]], list[Found]], written: _Lines | _Table) -> None:
    """With a count on the way, where the lines go elsewhere than to the terminal."""
    from pgkd_agent.data.values import visible

    columns = (TextColumn("{task.completed} texts"), TimeElapsedColumn(), TextColumn("{task.fields[speed]}"))
    hidden = sys.stdout.isatty() and isinstance(written, _Lines)
    rows = islice(rows, written.num_rows, None)
    with Progress(*columns, console=terminal.notes(), transient=True, disable=hidden) as progress:
        bar, blank = progress.add_task("", total=None, speed=""), 0
        while chunk := list(islice(rows, size)):
            seen = [text for text, _record in chunk if visible(text)]
            blank += len(chunk) - len(seen)
            found = iter(classify(seen))
            written.write([(record, text, next(found) if visible(text) else BLANK) for text, record in chunk])
            progress.advance(bar, len(chunk))
            progress.update(bar, speed=f"{progress.tasks[0].speed or 0:.0f} texts/s")
    if blank:
        terminal.say(terminal.notes(), f"texts that are blank, and get no label (null): {blank}")


def _classify_with_llm(
    rows: Rows,
    classifier: StudentClassifier,
    min_confidence: float,
    config: PGKDConfig,
    labels: Path | None,
    calls: Path | None,
    shown: int,
    written: _Lines | _Table,
) -> int:
    """Returns how many texts the LLM could not be asked about."""
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

        def classify(chunk: list[str]) -> list[Found]:
            return [
                {
                    "label": item.label,
                    "source": item.source,
                    **({"problem": item.problem} if item.problem else {}),
                    **_figures(item.student, shown),
                }
                for item in cascade.classify(chunk)
            ]

        try:
            _classify(rows, CASCADE_CHUNK, classify, written)
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
    return stats.failed
