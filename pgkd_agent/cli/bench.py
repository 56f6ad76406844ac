"""`pgkd bench`: what a student and an LLM take of time and money, here and now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import as_options, grouped
from pgkd_agent.cli.stopping import going_on, going_on_with
from pgkd_agent.errors import ConfigError, DataError
from pgkd_agent.text import counted

if TYPE_CHECKING:
    from pgkd_agent.config import PGKDConfig
    from pgkd_agent.experiments.bench import Measured
    from pgkd_agent.types import Example

app = typer.Typer(name="bench", help="Measurements on this machine.", no_args_is_help=True)

BATCH = 64
"""Rows of the paper's Table 5."""


@app.command("latency-cost")
@grouped
def latency_cost(
    *,
    model: options.Model,
    file: Annotated[Path, typer.Argument(help="Labelled rows: CSV, TSV, JSON, JSONL or Parquet.")],
    teacher: Annotated[
        str | None, typer.Option(help="The LLM to compare with, zero-shot; without it the student alone.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the batch, drawn by --seed (paper: 64).")] = BATCH,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of the student.")] = 5,
    machine_usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of this machine.", show_default="not known")
    ] = None,
    gpu_usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price with its GPU.", show_default="not known")
    ] = None,
    reading: options.Reading,
    zero_shot: options.ZeroShot,
    out: Annotated[
        Path | None, typer.Option(help="File for the LLM's answers; one that was left by a stopped run is continued.")
    ] = None,
    caps: options.Caps,
    sources: options.Sources,
    engine: options.Engine,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Seconds and cost of a batch, of the student (on the CPU, and on a GPU where there is one) and of an LLM.

    Says of every figure whether it was measured or computed, and of what.
    """
    from pgkd_agent.experiments.bench import measure_latency_cost
    from pgkd_agent.teacher.calls.prices import load_prices

    if teacher is None and (zero_shot.base_url, out) != (None, None):
        raise ConfigError("--base-url and --out are for an LLM; name it with --teacher SPEC")
    settings = options.settings_of(reading, zero_shot, caps, sources, more={"teacher.spec": teacher})
    drawn = _drawn(file, rows, settings)
    currency = load_prices(settings.teacher.prices).currency
    answers = (out or options.default_path("latency-cost", file).with_suffix(".jsonl")) if teacher else None
    log = terminal.Log(console := terminal.notes())

    def show(answered: int, _unresolved: int) -> None:
        what = f"asking {teacher}: {answered} of {rows}"
        status.update(what)
        log.goes_on(what)

    log.begins("measuring")
    with going_on(partial(going_on_with, answers)), console.status("measuring") as status:
        results = measure_latency_cost(
            model,
            drawn,
            settings,
            answers,
            machine_usd_per_hour,
            gpu_usd_per_hour,
            repeats,
            show,
            lambda estimate: terminal.say(console, f"estimate: {estimate}"),
            **vars(engine),
        )
    _print(results, rows, currency, answers, as_json)


def _drawn(file: Path, rows: int, settings: PGKDConfig) -> list[Example]:
    from pgkd_agent.data import read_examples
    from pgkd_agent.data.splitting import sample_rows
    from pgkd_agent.seeding import rng

    data = settings.data
    examples = read_examples(file, data.text_column, data.label_column, data.skip_incomplete)
    if len(examples) < rows:
        raise DataError(
            f"{file} has {counted(len(examples), 'row')}, fewer than the batch of {rows}; give --rows {len(examples)}"
        )
    return sample_rows(examples, rows, rng(settings.seed, 0, "evaluated_rows"))


def _print(results: Sequence[Measured], rows: int, currency: str, answers: Path | None, as_json: bool) -> None:
    if as_json:
        record = {"rows": rows, "currency": currency, "results": [asdict(one) for one in results]}
        typer.echo(json.dumps({**record, "answers": answers and str(answers)}, ensure_ascii=False))
        return
    for line in _lines(results, currency, answers is not None):
        typer.echo(line)
    if answers:
        typer.echo(f"the LLM's answers: {answers}")


def _lines(results: Sequence[Measured], currency: str, has_llm: bool) -> Iterator[str]:
    """A block for each contender, and how many times what a student takes the LLM takes."""
    for one in results:
        yield f"{one.name}: accuracy {one.accuracy:.3f}"
        for what, figure in (("seconds", one.seconds), (currency, one.cost)):
            value = "" if figure.value is None else f"{figure.value:.4g}, "
            yield as_options(f"  {what:<8} {value}{figure.how}")
    for own in results[:-1] if has_llm else ():
        pairs = (("seconds", results[-1].seconds, own.seconds), (currency, results[-1].cost, own.cost))
        times = [
            f"{over.value / under.value:.4g} times the {what}"
            for what, over, under in pairs
            if over.value is not None and under.value
        ]
        yield f"LLM against {own.name}: {', '.join(times) or 'not known'}"
