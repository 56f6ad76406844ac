"""Options that commands share, and how options become settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgkd_agent.cli import terminal
from pgkd_agent.cli.groups import Group, option
from pgkd_agent.config import PGKDConfig, build_config, provider_of
from pgkd_agent.errors import ConfigError

if TYPE_CHECKING:
    from pgkd_agent.data import Task
    from pgkd_agent.student.classifier import StudentClassifier

Model = Annotated[Path, typer.Argument(help="Model folder, e.g. runs/NAME/models/best.")]
TextColumn = Annotated[str | None, typer.Option(help="Column with the texts.")]
Out = Annotated[Path | None, typer.Option(help="New run directory.", show_default="runs/NAME-TIME")]
Set = Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. student.learning_rate=1e-5.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with a folder per dataset: train.jsonl, test.jsonl, labels.json."),
]
NO_TEACHER = "{given}: only for --teacher, which is not given"
"""Message of `refuse`."""


@dataclass(frozen=True)
class Data(Group):
    """Rows to train on."""

    train: Path | None = option("Labelled rows: CSV, TSV, JSON, JSONL or Parquet, or a folder of save_to_disk.")
    dataset: str | None = option(
        "One of the paper's datasets instead of --train: see pgkd datasets.", key="data.dataset"
    )
    data_dir: Path | None = option(
        "Folder with the files of --dataset; else the model hub is asked.", key="data.data_dir"
    )
    val: Path | None = option("Validation rows; else a share of --train.")
    test: Path | None = option("Test rows; only for the before/after table.")
    labels: Path | None = option("Taxonomy (JSON, YAML or text); else all labels of the rows.")
    rows: int | None = option("Draw this many labelled rows (paper: 1000).", key="data.rows")

    def task(self, settings: PGKDConfig, unlabelled: Path | None = None) -> Task:
        terminal.Log(terminal.notes()).begins("reading rows")
        from pgkd_agent.pipeline import load_task  # with all that it needs: that takes a while itself

        return load_task(self.train, self.val, self.test, self.labels, settings, unlabelled)

    def run_directory(self, settings: PGKDConfig) -> Path:
        if self.train is None:
            return default_path("run", Path(settings.data.dataset or ""))
        return default_path(self.train.resolve().parent.name or "run", self.train)


@dataclass(frozen=True)
class Reading(Group):
    """How labelled rows are drawn and read."""

    seed: int | None = option("Seed of everything random.", key="seed", show_default="0")
    text_column: str | None = option("Column with the texts.", key="data.text_column")
    label_column: str | None = option("Column with the labels.", key="data.label_column")


@dataclass(frozen=True)
class Sources(Group):
    """Settings that have no option of their own."""

    config: Path | None = option("YAML file with settings.")
    set_: list[str] | None = option("A setting, e.g. student.learning_rate=1e-5.", "--set")


@dataclass(frozen=True)
class RunSources(Sources):
    """Settings of a run."""

    recipe: str | None = option("default, or paper: what the paper says, for bert-base-uncased.")
    student: str | None = option("minilm, mpnet, a hub id or a folder.", key="student.name", show_default="minilm")


@dataclass(frozen=True)
class Caps(Group):
    """What a teacher may take."""

    max_usd: float | None = option(
        "Most that the teacher may cost; needs its price in the price table.", key="budget.max_usd"
    )
    max_calls: int | None = option("Most calls of the teacher.", key="budget.max_calls")
    max_tokens: int | None = option("Most tokens of the teacher, in and out.", key="budget.max_tokens")
    max_minutes: float | None = option("Most minutes of the run.", key="budget.max_minutes")


@dataclass(frozen=True)
class Server(Group):
    """Where the teacher is."""

    base_url: str | None = option("Another server that speaks the provider's protocol.")


@dataclass(frozen=True)
class Batch(Group):
    """How a teacher is asked whose answers can wait."""

    batch: bool | None = option(
        "Ask by batch jobs of the provider (openai, anthropic): for half the price, within a day.",
        "--batch",
        key="teacher.batch",
        show_default=False,
    )


@dataclass(frozen=True)
class ZeroShot(Server):
    """A teacher that classifies."""

    prompt: str | None = option("Zero-shot prompt variant, or a path to a .j2 template.", key="zero_shot.prompt")
    description: str | None = option("What the texts are; tells the teacher the task.", key="data.task_description")


@dataclass(frozen=True)
class Engine(Group):
    """How a saved model computes."""

    batch_size: int = option("Most texts per forward pass.", default=64, min=1)
    engine: str = option("auto (what the folder holds), torch, onnx, openvino.", default="auto")
    precision: str = option(
        "Of torch and openvino: fp32, bf16, or auto (bf16 where the hardware has it).", default="fp32"
    )
    threads: int | None = option("CPU threads.", min=1, show_default="the library's")


@dataclass(frozen=True)
class Inference(Engine):
    """How and where a saved model computes."""

    device: str = option("auto, cpu, cuda, mps.", default="auto")

    def load(self, model: Path) -> StudentClassifier:
        from pgkd_agent.student.classifier import StudentClassifier

        return StudentClassifier.load(model, **vars(self))


@dataclass(frozen=True)
class Outlets(Group):
    """Where a run's figures and its model go."""

    track: list[str] | None = option("Send figures to tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT]; extras.")
    push_to_hub: str | None = option(
        "Put the model into this repository of the model hub, OWNER/NAME: a private one, made where it is new."
    )
    as_json: bool = option("Print the result as JSON, all else to stderr.", "--json", default=False)


def settings_of(*groups: Group, more: Mapping[str, Any] | None = None) -> PGKDConfig:
    """Merge what the groups of a command say, and the files and assignments that they name.

    Args:
        more: Further settings by dotted key; None values count as not given.
    Raises:
        ConfigError: See `build_config` and `_at_server`.
    """
    given = {name: value for group in groups for name, value in vars(group).items()}
    settings = build_config(
        recipe=given.get("recipe"),
        file=given.get("config"),
        assignments=given.get("set_") or (),
        flags={**flags_of(*groups), **(more or {})},
    )
    base_url = given.get("base_url")
    return settings if base_url is None else _at_server(settings, base_url)


def flags_of(*groups: Any) -> dict[str, Any]:
    """Options that were given and have a key, by that."""
    values = {each.metadata["key"]: getattr(group, each.name) for group in groups for each in fields(group)}
    return {key: value for key, value in values.items() if key and value is not None}


def _at_server(settings: PGKDConfig, base_url: str) -> PGKDConfig:
    """All teachers at this server but local ones: none may take key and rows to its provider's own address.

    Looks at the merged settings, since first teacher and ensemble may come from a file too.

    Raises:
        ConfigError: The address is empty, no teacher has a server, or one server cannot be all of theirs.
    """
    if not base_url.strip():
        raise ConfigError("--base-url is empty; expected an address, e.g. http://127.0.0.1:8000/v1")
    teacher = settings.teacher
    specs = [teacher.spec, *(member.spec for member in teacher.ensemble)]
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
    first = {} if teacher.is_local else {"teacher.base_url": base_url}
    ensemble = [
        member if provider_of(member.spec) == "local" else member.changed({"base_url": base_url})
        for member in teacher.ensemble
    ]
    return settings.changed({**first, "teacher.ensemble": ensemble})


def default_path(kind: str, source: Path) -> Path:
    """Such as `runs/bank-train-20261125-093000`: where results go unless --out says otherwise."""
    return Path("runs") / f"{kind}-{source.stem}-{datetime.now():%Y%m%d-%H%M%S}"
