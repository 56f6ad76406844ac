"""`pgkd evaluate`: the report of a model, or of a teacher that classifies by itself, over labelled rows."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped, refuse
from pgkd_agent.cli.stopping import going_on, going_on_with
from pgkd_agent.errors import ConfigError
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.config import PGKDConfig
    from pgkd_agent.student.classifier import StudentClassifier
    from pgkd_agent.teacher.calls.estimates import Estimate
    from pgkd_agent.types import Example


@grouped
def evaluate(
    context: typer.Context,
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[MODEL] FILE", help="A model and labelled rows; with --teacher, rows."),
    ],
    teacher: Annotated[
        str | None, typer.Option(help="Evaluate this LLM by itself (zero-shot), instead of a model.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Taxonomy (JSON, YAML or text); else all labels of the rows.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Evaluate this many rows, drawn by --seed.")] = None,
    reading: options.Reading,
    zero_shot: options.ZeroShot,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the teacher's answers; one that was left by a stopped run is continued."),
    ] = None,
    batch: options.Batch,
    caps: options.Caps,
    sources: options.Sources,
    inference: options.Inference,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Print the classification report over labelled rows, of a model or of a teacher that classifies by itself."""
    from pgkd_agent.data import read_examples
    from pgkd_agent.data.splitting import sample_rows
    from pgkd_agent.seeding import rng

    if len(paths) != (1 if teacher else 2):
        raise ConfigError(
            "give a model folder and a file: pgkd evaluate MODEL FILE; or a teacher and a file: "
            "pgkd evaluate --teacher SPEC FILE"
        )
    if teacher:
        refuse(context, "{given}: only for a model, and --teacher is evaluated by itself", options.Inference)
    else:
        refuse(context, options.NO_TEACHER, "labels", options.ZeroShot, "out", options.Batch, options.Caps)
    settings = options.settings_of(reading, zero_shot, batch, caps, sources, more={"teacher.spec": teacher})
    file, data = paths[-1], settings.data
    examples = read_examples(file, data.text_column, data.label_column, data.skip_incomplete)
    chosen = sample_rows(examples, rows, rng(settings.seed, 0, "evaluated_rows")) if rows else examples
    if teacher:
        _evaluate_teacher(file, examples, chosen, labels, settings, out, as_json)
    else:
        _evaluate_model(inference.load(paths[0]), chosen, str(file), as_json)


def _evaluate_model(classifier: StudentClassifier, rows: list[Example], where: str, as_json: bool) -> None:
    from pgkd_agent.data.taxonomy import check_labels
    from pgkd_agent.metrics.calibration import calibration_error, coverage, with_temperature
    from pgkd_agent.metrics.report import class_ids, format_report, row_losses
    from pgkd_agent.metrics.report import evaluate as evaluate_rows

    check_labels(rows, classifier.taxonomy, where)
    probabilities, temperature = classifier.probabilities([row.text for row in rows]), classifier.temperature
    terminal.warn(classifier.note)
    calibrated_loss = float(row_losses(probabilities, rows, classifier.taxonomy).mean())
    evaluation = evaluate_rows(with_temperature(probabilities, 1 / temperature), rows, classifier.taxonomy)
    gold = class_ids(rows, classifier.taxonomy)
    error, covered = calibration_error(probabilities, gold), coverage(probabilities, gold)
    if as_json:
        confidence = {
            "temperature": temperature,
            "calibrated_loss": calibrated_loss,
            "calibration_error": error,
            "coverage": list(map(asdict, covered)),
        }
        typer.echo(json.dumps({**asdict(evaluation), **confidence}, ensure_ascii=False))
        return
    terminal.echo(
        f"{format_report(evaluation.report)}\n"
        f"loss {evaluation.loss:.4f}; with the temperature of {temperature:.2f} {calibrated_loss:.4f}, and calibration "
        f"error {error:.3f}\n"
        "confidence at least  share of rows  accuracy on them"
    )
    for line in covered:
        accuracy = "" if line.accuracy is None else f"{line.accuracy:.3f}"
        typer.echo(f"{line.min_confidence:>19.2f}  {line.share:>13.1%}  {accuracy:>16}")


def _evaluate_teacher(
    file: Path,
    all_rows: list[Example],
    rows: list[Example],
    labels: Path | None,
    config: PGKDConfig,
    out: Path | None,
    as_json: bool,
) -> None:
    """The taxonomy is that of the whole file, so that fewer rows are not an easier task."""
    from pgkd_agent.data import read_taxonomy, taxonomy_of
    from pgkd_agent.data.taxonomy import check_labels
    from pgkd_agent.experiments.zero_shot import evaluate_zero_shot
    from pgkd_agent.metrics.report import format_report

    taxonomy = read_taxonomy(labels) if labels else taxonomy_of(all_rows)
    check_labels(rows, taxonomy, str(file))
    out = out or options.default_path("zero-shot", file).with_suffix(".jsonl")
    typer.echo(
        f"{counted(len(rows), 'row')}, {counted(len(taxonomy), 'class', 'classes')}, teacher {config.teacher.spec}, "
        f"prompt {config.zero_shot.prompt!r}, answers in {out}",
        err=True,
    )
    left = TimeRemainingColumn(elapsed_when_finished=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left)
    console = terminal.notes()
    log, how = terminal.Log(console), partial(going_on_with, out)
    with (
        going_on(how),
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("asking", total=len(rows))
        log.begins(f"asking the teacher about {counted(len(rows), 'row')}")

        def show(answered: int, unresolved: int) -> None:
            what = f"asking, {unresolved} unresolved"
            progress.update(bar, completed=answered, description=what)
            log.goes_on(f"{answered} of {len(rows)} answered, {unresolved} unresolved")

        def show_wait(what: str) -> None:
            progress.update(bar, description=what)
            log.goes_on(what)

        def show_estimate(estimate: Estimate) -> None:
            terminal.say(console, f"estimate: {estimate}")

        result = evaluate_zero_shot(rows, taxonomy, config, out, show, show_estimate, on_wait=show_wait)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "answers": str(out)}, ensure_ascii=False))
        return
    seconds = (
        f"{result.seconds:.0f} s for {counted(result.asked, 'row')}"
        if result.asked
        else "all answers were there already"
    )
    terminal.echo(
        f"{format_report(result.report)}\n"
        f"unresolved answers, counted as wrong: {len(result.unresolved)} of {len(rows)}\n"
        f"teacher: {result.usage}; {seconds}"
    )
