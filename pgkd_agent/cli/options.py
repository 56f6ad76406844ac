"""Options shared by commands, and how they become a config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pgkd_agent.config import PGKDConfig, TeacherSettings, build_config, provider_of
from pgkd_agent.errors import ConfigError

Train = Annotated[Path | None, typer.Option("--train", help="Labelled rows: CSV, TSV, JSONL or Parquet.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="One of the paper's datasets instead of --train: see pgkd datasets.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with the files of --dataset; else the model hub is asked.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with a folder per dataset: train.jsonl, test.jsonl, labels.json."),
]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Another server that speaks the provider's protocol.")]
Description = Annotated[
    str | None, typer.Option("--description", help="What the texts are; tells the teacher the task.")
]
ZeroShotPrompt = Annotated[
    str | None, typer.Option("--prompt", help="Zero-shot prompt variant, or a path to a .j2 template.")
]
Val = Annotated[Path | None, typer.Option("--val", help="Validation rows; else a share of --train.")]
Test = Annotated[Path | None, typer.Option("--test", help="Test rows; only for the before/after table.")]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Taxonomy (JSON, YAML or text); else all labels of the rows.")
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column with the texts.")]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Column with the labels.")]
StudentName = Annotated[
    str | None, typer.Option("--student", help="minilm, mpnet, a hub id or a folder.", show_default="minilm")
]
Rows = Annotated[int | None, typer.Option("--rows", help="Draw this many labelled rows (paper: 1000).")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]
Recipe = Annotated[str | None, typer.Option("--recipe", help="default, or paper: the paper's exact settings.")]
Out = Annotated[Path | None, typer.Option("--out", help="New run directory.", show_default="runs/NAME-TIME")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. student.learning_rate=1e-5.")]
MaxUSD = Annotated[
    float | None, typer.Option("--max-usd", help="Most that the teacher may cost; needs its price in the price table.")
]
MaxCalls = Annotated[int | None, typer.Option("--max-calls", help="Most calls of the teacher.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Most tokens of the teacher, in and out.")]
MaxMinutes = Annotated[float | None, typer.Option("--max-minutes", help="Most minutes of the run.")]
Cache = Annotated[
    Path | None, typer.Option("--cache", help="SQLite file with replies that runs share; a hit costs nothing.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Share no replies, whatever the settings say.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Most texts per forward pass.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")]
Engine = Annotated[str, typer.Option("--engine", help="auto (what the folder holds), torch, onnx, openvino.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="Of torch and openvino: fp32, bf16, or auto (bf16 where the hardware has it)."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="the library's")]


@dataclass(frozen=True)
class Outlets:
    """Where a run's figures go.

    Attributes:
        as_json: Print the result as result.json holds it, and nothing else to stdout.
        track: Experiment trackers, see `tracked`.
        hub: Repository of the model hub that the model is put into when the run has ended; None for none.
    """

    as_json: bool = False
    track: Sequence[str] = ()
    hub: str | None = None


CAPS = ("max_usd", "max_calls", "max_tokens", "max_minutes")
"""Parameters of `caps`."""
NO_TEACHER = "only for --teacher, which is not given"


def caps(
    max_usd: float | None, max_calls: int | None, max_tokens: int | None, max_minutes: float | None
) -> dict[str, float]:
    """Those that were given, by their names in the settings."""
    named = {"max_usd": max_usd, "max_calls": max_calls, "max_tokens": max_tokens, "max_minutes": max_minutes}
    return {name: cap for name, cap in named.items() if cap is not None}


def at_server(settings: TeacherSettings, base_url: str) -> TeacherSettings:
    """All teachers at this server but local ones: none may take key and rows to its provider's own address.

    Looks at the merged settings, since first teacher and ensemble may come from a file too.

    Raises:
        ConfigError: The address is empty, no teacher has a server, or one server cannot be all of theirs.
    """
    if not base_url.strip():
        raise ConfigError("--base-url is empty; expected an address, e.g. http://127.0.0.1:8000/v1")
    specs = [settings.spec, *(member.spec for member in settings.ensemble)]
    providers = sorted({provider_of(spec) for spec in specs} - {"local"})
    if not providers:
        raise ConfigError(
            f"--base-url names a server, but a local: teacher has no server (found {', '.join(specs)}); leave it out, "
            "or take a teacher that is asked over the network, e.g. --teacher openai:NAME"
        )
    if len(providers) > 1:
        raise ConfigError(
            f"--base-url names one server, but the teachers are of several providers ({', '.join(providers)}); leave "
            "it out and name each server in a --config file: teacher.base_url and teacher.ensemble[].base_url"
        )
    ensemble = tuple(
        member if provider_of(member.spec) == "local" else member.model_copy(update={"base_url": base_url})
        for member in settings.ensemble
    )
    first = settings.base_url if settings.is_local else base_url
    return settings.model_copy(update={"base_url": first, "ensemble": ensemble})


def zero_shot_settings(
    config: Path | None,
    assignments: list[str] | None,
    flags: dict[str, Any],
    teacher: str | None,
    base_url: str | None,
) -> PGKDConfig:
    """Settings of a command that may ask a teacher to classify.

    Args:
        flags: Of the command itself, by their names in the settings.
    Raises:
        ConfigError: See `build_config` and `at_server`.
    """
    settings = build_config(file=config, assignments=assignments or (), flags={**flags, "teacher.spec": teacher})
    if teacher and base_url is not None:
        return settings.model_copy(update={"teacher": at_server(settings.teacher, base_url)})
    return settings


def option_names(parameters: Iterable[str]) -> str:
    """Options as they are written, by the names of a command's parameters."""
    return ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in parameters)


def refuse(context: typer.Context, parameters: Sequence[str], why: str) -> None:
    """
    Args:
        parameters: Of the command that runs, which it would leave unread; their defaults are left alone.
    Raises:
        ConfigError: One of them is given.
    """
    sources = {name: context.get_parameter_source(name) for name in parameters}
    if given := [name for name, source in sources.items() if source is None or source.name != "DEFAULT"]:
        raise ConfigError(f"{option_names(given)}: {why}")


def money(cost: float | None, currency: str) -> str:
    return "price not known" if cost is None else f"{cost:.4f} {currency}"


def default_path(kind: str, source: Path) -> Path:
    """Such as `runs/bank-train-20261125-093000`: where results go unless --out says otherwise."""
    from datetime import datetime

    return Path("runs") / f"{kind}-{source.stem}-{datetime.now():%Y%m%d-%H%M%S}"
