"""`pgkd classify` and `pgkd export`: a saved model at work, and made ready for work elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import options

CHUNK = 2048
"""Texts read, sorted by length and classified at a time; bounds the memory for any input."""

CHECKED_ROWS = 2000
"""Most texts that an export is checked on."""

Model = Annotated[Path, typer.Argument(help="Model folder, e.g. runs/NAME/models/best.")]


def classify(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts (CSV, TSV, JSONL, Parquet, TXT), or - for lines of stdin.")],
    text_column: options.TextColumn = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    engine: options.Engine = "auto",
    precision: options.Precision = "fp32",
    threads: options.Threads = None,
) -> None:
    """Print a JSON line per text: text, label, confidence and the probability of every label.

    Files of any size: texts are read, and results written, some thousands at a time.
    """
    from pgkd_agent.data import stream_texts
    from pgkd_agent.student.classifier import StudentClassifier

    texts = _stdin() if str(file) == "-" else stream_texts(file, text_column)
    classifier = StudentClassifier.load(model, device, batch_size, engine=engine, precision=precision, threads=threads)
    while chunk := list(islice(texts, CHUNK)):
        rows = (
            {
                "text": text,
                "label": prediction.label,
                "confidence": round(prediction.confidence, 6),
                "probabilities": {name: round(p, 6) for name, p in prediction.probabilities.items()},
            }
            for text, prediction in zip(chunk, classifier.classify(chunk), strict=True)
        )
        typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))


def export(
    model: Model,
    format: Annotated[str, typer.Option("--format", help="onnx, or onnx-int8: smaller and less exact.")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", help="New folder. [default: MODEL-FORMAT]")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", help="Texts to check the export on. [default: the validation rows of the model's run]"),
    ] = None,
    text_column: options.TextColumn = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            min=0,
            max=1,
            help="Least share of texts that keep their label. [default: 0.995; onnx-int8: 0.97]",
        ),
    ] = None,
) -> None:
    """Export a model for ONNX Runtime and OpenVINO, checked against the original; needs the extra 'onnx'."""
    from pgkd_agent.data import stream_texts
    from pgkd_agent.student.exporting import export_classifier

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
