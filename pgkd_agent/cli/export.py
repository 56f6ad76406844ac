"""`pgkd export`: a saved model made ready for work elsewhere."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import options
from pgkd_agent.errors import ConfigError
from pgkd_agent.text import counted

CHECKED_ROWS = 2000
"""Most texts that an export is checked on."""


def export(
    model: options.Model,
    format: Annotated[str, typer.Option(help="onnx, or onnx-int8: smaller and less exact.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="New folder.", show_default="MODEL-FORMAT")] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Texts to check the export on.", show_default="the validation rows of the model's run"),
    ] = None,
    text_column: options.TextColumn = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Least share of texts that keep their label.", show_default="0.995; onnx-int8: 0.97"
        ),
    ] = None,
) -> None:
    """Export a model for ONNX Runtime and OpenVINO, checked against the original; needs the extra 'onnx'."""
    from pgkd_agent.data import stream_texts
    from pgkd_agent.student.engines.export import export_classifier
    from pgkd_agent.student.pretrained import model_folder

    folder = model_folder(model).resolve()
    source = check or _validation_rows(folder)
    texts = list(islice(stream_texts(source, text_column if check else None), CHECKED_ROWS))
    out = out or folder.with_name(f"{folder.name}-{format}")
    report = export_classifier(folder, out, texts, str(source), format, min_agreement)
    typer.echo(
        f"{out}: {report.size_bytes / 1e6:.0f} MB, "
        f"the original {report.original_size_bytes / 1e6:.0f} MB\n"
        f"checked on {counted(report.texts, 'text')} ({report.checked_on}): same label as the original for "
        f"{report.label_agreement:.2%}, probabilities differ by at most {report.max_probability_difference:.2g}"
    )


def _validation_rows(model: Path) -> Path:
    """Those of the run that the model is of: RUN/models/NAME."""
    rows = model.parent.parent / "validation.jsonl"
    if not rows.is_file():
        raise ConfigError(
            f"{model} is in no run directory, so name texts like yours to check the export on: --check FILE"
        )
    return rows
