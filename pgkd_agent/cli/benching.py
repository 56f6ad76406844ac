"""`pgkd bench`: what a student and an LLM take of time and money, here and now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgkd_agent.cli import options, terminal

if TYPE_CHECKING:
    from pgkd_agent.experiments.bench import Figure, LatencyCost
    from pgkd_agent.teacher.calls.estimates import Estimate

app = typer.Typer(help="Measurements on this machine.", no_args_is_help=True)

BATCH = 64
"""Rows of the paper's Table 5."""


@app.command("latency-cost")
def latency_cost(
    model: Annotated[Path, typer.Argument(help="Model folder, e.g. runs/NAME/models/best.")],
    file: Annotated[Path, typer.Argument(help="Labelled rows: CSV, TSV, JSONL or Parquet.")],
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="The LLM to compare with, zero-shot; without it the student alone.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the batch, drawn by --seed (paper: 64).")] = BATCH,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed passes of the student.")] = 5,
    machine_usd_per_hour: Annotated[
        float | None,
        typer.Option("--machine-usd-per-hour", min=0, help="Price of this machine.", show_default="not known"),
    ] = None,
    gpu_usd_per_hour: Annotated[
        float | None, typer.Option("--gpu-usd-per-hour", min=0, help="Price with its GPU.", show_default="not known")
    ] = None,
    seed: options.Seed = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    base_url: options.BaseUrl = None,
    prompt: options.ZeroShotPrompt = None,
    description: options.Description = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the LLM's answers; one that was left by a stopped run is continued."),
    ] = None,
    max_usd: options.MaxUSD = None,
    max_calls: options.MaxCalls = None,
    max_tokens: options.MaxTokens = None,
    max_minutes: options.MaxMinutes = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    batch_size: options.BatchSize = 64,
    engine: options.Engine = "auto",
    precision: options.Precision = "fp32",
    threads: options.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Seconds and cost of a batch, of the student (on the CPU, and on a GPU where there is one) and of an LLM.

    Says of every figure whether it was measured or computed, and of what.
    """
    from pgkd_agent.data import read_examples
    from pgkd_agent.data.splitting import sample_rows
    from pgkd_agent.errors import ConfigError, DataError
    from pgkd_agent.experiments.bench import MachinePrices, StudentOptions, measure_latency_cost
    from pgkd_agent.seeding import rng

    if teacher is None and (base_url, out) != (None, None):
        raise ConfigError("--base-url and --out are for an LLM; name it with --teacher SPEC")
    flags = {
        "budget": options.caps(max_usd, max_calls, max_tokens, max_minutes),
        "seed": seed,
        "data.text_column": text_column,
        "data.label_column": label_column,
        "data.task_description": description,
        "zero_shot.prompt": prompt,
    }
    settings = options.zero_shot_settings(config, set_, flags, teacher, base_url)
    data = settings.data
    examples = read_examples(file, data.text_column, data.label_column, data.skip_incomplete)
    if len(examples) < rows:
        raise DataError(f"{file} has {len(examples)} rows, fewer than the batch of {rows}; give --rows {len(examples)}")
    answers = (out or options.default_path("latency-cost", file).with_suffix(".jsonl")) if teacher else None
    console = terminal.notes()

    def say_estimate(estimate: Estimate) -> None:
        console.print(f"estimate: {estimate}", highlight=False, soft_wrap=True)

    with console.status("measuring") as status:
        result = measure_latency_cost(
            model,
            sample_rows(examples, rows, rng(settings.seed, 0, "evaluated_rows")),
            settings,
            answers,
            MachinePrices(machine_usd_per_hour, gpu_usd_per_hour),
            StudentOptions(engine, precision, threads, batch_size, repeats),
            lambda answered, _unresolved: status.update(f"asking {teacher}: {answered} of {rows}"),
            say_estimate,
        )
    typer.echo(json.dumps(result.as_json(), ensure_ascii=False) if as_json else "\n".join(_lines(result)))


def _lines(result: LatencyCost) -> list[str]:
    lines = [f"a batch of {result.rows} rows"]
    for measured in result.results:
        lines += [
            f"{measured.name}: accuracy {measured.accuracy:.3f}",
            f"  seconds  {_text(measured.seconds)}",
            f"  {result.currency:<8} {_text(measured.usd)}",
        ]
    for ratio in result.ratios:
        lines += [
            f"LLM against {ratio.student}",
            f"  seconds  {_text(ratio.seconds, 'x')}",
            f"  {result.currency:<8} {_text(ratio.usd, 'x')}",
        ]
    if result.answers:
        lines.append(f"the LLM's answers: {result.answers}")
    return lines


def _text(figure: Figure, unit: str = "") -> str:
    value = "" if figure.value is None else f"{figure.value:.4g}{unit}, "
    return f"{value}{figure.basis} ({figure.how})"
