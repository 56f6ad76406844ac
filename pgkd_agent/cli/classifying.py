"""`pgkd classify`: a saved model at work."""

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

Model = Annotated[Path, typer.Argument(help="Model folder, e.g. runs/NAME/models/best.")]


def classify(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts (CSV, TSV, JSONL, Parquet, TXT), or - for lines of stdin.")],
    text_column: options.TextColumn = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
) -> None:
    """Print a JSON line per text: text, label, confidence and the probability of every label."""
    from pgkd_agent.data import read_texts
    from pgkd_agent.student.classifier import StudentClassifier

    texts = _stdin() if str(file) == "-" else iter(read_texts(file, text_column))
    classifier = StudentClassifier.load(model, device, batch_size)
    while chunk := list(islice(texts, CHUNK)):
        for text, prediction in zip(chunk, classifier.classify(chunk), strict=True):
            row = {
                "text": text,
                "label": prediction.label,
                "confidence": round(prediction.confidence, 6),
                "probabilities": {name: round(p, 6) for name, p in prediction.probabilities.items()},
            }
            typer.echo(json.dumps(row, ensure_ascii=False))


def _stdin() -> Iterator[str]:
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())
