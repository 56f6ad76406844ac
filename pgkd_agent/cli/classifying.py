"""`pgkd classify` and `pgkd export`: a saved model at work, and made ready for work elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from pgkd_agent.cli import options, terminal

if TYPE_CHECKING:
    from pgkd_agent.config import PGKDConfig
    from pgkd_agent.student.classifier import Prediction, StudentClassifier

CHUNK = 2048
"""Texts read, sorted by length and classified at a time; bounds the memory for any input."""

CASCADE_CHUNK = 64
"""The same where an LLM may be asked: what it said is written soon."""

CHECKED_ROWS = 2000
"""Most texts that an export is checked on."""

Model = Annotated[Path, typer.Argument(help="Model folder, e.g. runs/NAME/models/best.")]


def classify(
    context: typer.Context,
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts (CSV, TSV, JSONL, Parquet, TXT), or - for lines of stdin.")],
    text_column: options.TextColumn = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    engine: options.Engine = "auto",
    precision: options.Precision = "fp32",
    threads: options.Threads = None,
    min_confidence: Annotated[
        float | None,
        typer.Option("--min-confidence", min=0, max=1, help="Give texts below it no label, or ask --teacher."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="provider:model, asked about texts below --min-confidence.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Taxonomy with descriptions for the teacher.", show_default="the model's"),
    ] = None,
    base_url: options.BaseUrl = None,
    prompt: options.ZeroShotPrompt = None,
    description: options.Description = None,
    max_usd: options.MaxUSD = None,
    max_calls: options.MaxCalls = None,
    max_tokens: options.MaxTokens = None,
    max_minutes: options.MaxMinutes = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    calls: Annotated[
        Path | None,
        typer.Option(
            "--calls",
            help="SQLite file that keeps what the LLM said: the same command goes on with it, caps count all of it.",
        ),
    ] = None,
) -> None:
    """Print a JSON line per text: text, label, confidence and the probability of every label.

    Files of any size: texts are read, and results written, some thousands at a time. With --min-confidence a text that
    the model is less sure of gets no label (null), or with --teacher that of an LLM, 64 texts at a time; `source` says
    whose it is, and the last line of stderr how often it was asked and what that took. Exit code 1 where it could not
    be asked about some of them.
    """
    from pgkd_agent.data import stream_texts
    from pgkd_agent.errors import ConfigError
    from pgkd_agent.student.classifier import StudentClassifier

    caps = options.caps(max_usd, max_calls, max_tokens, max_minutes)
    if teacher is None:
        for_a_teacher = ("labels", "base_url", "prompt", "description", *options.CAPS, "config", "set_", "calls")
        options.refuse(context, for_a_teacher, options.NO_TEACHER)
    if teacher and min_confidence is None:
        raise ConfigError("--teacher is asked about texts below --min-confidence; give both")
    texts = _stdin() if str(file) == "-" else stream_texts(file, text_column)
    classifier = StudentClassifier.load(model, device, batch_size, engine=engine, precision=precision, threads=threads)
    if teacher is None:
        _print_rows(texts, CHUNK, lambda chunk: _rows_of(classifier.classify(chunk), min_confidence))
        return
    flags = {
        "budget": caps,
        "data.task_description": description,
        "zero_shot.prompt": prompt,
    }
    settings = options.zero_shot_settings(config, set_, flags, teacher, base_url)
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
    columns = (TextColumn("{task.completed} texts"), TimeElapsedColumn(), TextColumn("{task.fields[speed]}"))
    hidden = sys.stdout.isatty()
    with Progress(*columns, console=terminal.notes(), transient=True, disable=hidden) as progress:
        bar = progress.add_task("", total=None, speed="")
        while chunk := list(islice(texts, size)):
            rows = ({"text": text, **row} for text, row in zip(chunk, classify(chunk), strict=True))
            typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
            progress.advance(bar, len(chunk))
            progress.update(bar, speed=f"{progress.tasks[0].speed or 0:.0f} texts/s")


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
    from pgkd_agent.errors import ConfigError
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
            stats, spent = cascade.stats, llm.spent
            terminal.notes().print(
                f"{stats.fallbacks} of {stats.texts} texts ({stats.fallback_share:.1%}) were below {min_confidence:g}; "
                f"{config.teacher.spec} named a class for {stats.fallbacks - stats.unresolved - stats.failed}, none "
                f"for {stats.unresolved}, and could not be asked about {stats.failed}: {spent.calls} calls, "
                f"{spent.tokens} tokens, {options.money(spent.cost if has_price else None, prices.currency)}",
                highlight=False,
                soft_wrap=True,
            )
    if stats.failed:
        raise typer.Exit(1)


def export(
    model: Model,
    format: Annotated[str, typer.Option("--format", help="onnx, or onnx-int8: smaller and less exact.")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", help="New folder.", show_default="MODEL-FORMAT")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check", help="Texts to check the export on.", show_default="the validation rows of the model's run"
        ),
    ] = None,
    text_column: options.TextColumn = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            min=0,
            max=1,
            help="Least share of texts that keep their label.",
            show_default="0.995; onnx-int8: 0.97",
        ),
    ] = None,
) -> None:
    """Export a model for ONNX Runtime and OpenVINO, checked against the original; needs the extra 'onnx'."""
    from pgkd_agent.data import stream_texts
    from pgkd_agent.student.engines.export import export_classifier

    folder = model.resolve()
    source = check or _validation_rows(folder)
    texts = list(islice(stream_texts(source, text_column if check else None), CHECKED_ROWS))
    report = export_classifier(
        folder, out or folder.with_name(f"{folder.name}-{format}"), texts, str(source), format, min_agreement
    )
    typer.echo(
        f"{out or folder.with_name(f'{folder.name}-{format}')}: {report.size_bytes / 1e6:.0f} MB, "
        f"the original {report.original_size_bytes / 1e6:.0f} MB\n"
        f"checked on {report.texts} texts ({report.checked_on}): same label as the original for "
        f"{report.label_agreement:.2%}, probabilities differ by at most {report.max_probability_difference:.2g}"
    )


def _validation_rows(model: Path) -> Path:
    """Those of the run that the model is of: RUN/models/NAME."""
    from pgkd_agent.errors import ConfigError

    rows = model.parent.parent / "validation.jsonl"
    if not rows.is_file():
        raise ConfigError(
            f"{model} is in no run directory, so name texts like yours to check the export on: --check FILE"
        )
    return rows


def _stdin() -> Iterator[str]:
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())
