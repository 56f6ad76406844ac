"""A comparison as a YAML file: methods, datasets, seeds, and what is the same for all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgkd_agent.config import PGKDConfig, build_config, explain, read_yaml
from pgkd_agent.data import PRESETS
from pgkd_agent.errors import ConfigError
from pgkd_agent.methods import REPEATS, check_method

Settings = dict[str, Any]
"""Nested, as in a config file."""

TRAIN_FILE = "train.jsonl"
NAME = re.compile(r"\w[\w.=+-]*")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MethodEntry(_Record):
    """A line of the table."""

    method: str | None = None
    """Name of the method; None: that of the entry."""
    of: str | None = None
    """For a control, the entry of PGKD whose accepted samples it repeats; None: the only one."""
    settings: Settings = Field(default_factory=dict)
    """Where it differs from the others."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the method itself, e.g. `shots`."""


class DatasetEntry(_Record):
    """Rows to compare on."""

    source: str | None = None
    """A folder of the data directory, or one of the paper's datasets; None: the name of the entry."""
    settings: Settings = Field(default_factory=dict)
    """Where it differs from the others, e.g. in `data.rows`."""


class ComparisonFile(_Record):
    """What `pgkd compare` reads."""

    about: str = ""
    """What is compared, and what is known of it before it starts."""
    hours: float | None = None
    """What all of it takes, and of which machine `about` says."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """A run of every method for each."""
    baseline: str = "plain"
    """The entry that differences are from."""
    settings: Settings = Field(default_factory=dict)
    """Of all methods and datasets."""
    tune_seed: int | None = None
    """Seed of the runs that choose; None: the first one."""
    tune: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Dotted settings and values to choose from, for each dataset, by the validation loss of the plain student. All
    methods get the choice."""
    datasets: dict[str, DatasetEntry] = Field(min_length=1)
    """By the name that the table shows."""
    methods: dict[str, MethodEntry] = Field(min_length=1)
    """By the name that the table shows."""
    overrides: Settings = Field(default_factory=dict)
    """Before all other settings: what the command line says."""
    paper: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """The paper's figures, by dataset, entry and metric, to stand beside the measured ones."""


@dataclass(frozen=True)
class Cell:
    """One training, or one round of questions, of a table.

    Attributes:
        source: The folder of its rows; None where the settings name one of the paper's datasets.
        of: The entry it repeats.
    """

    dataset: str
    source: Path | None
    entry: str
    seed: int
    method: str
    config: PGKDConfig
    options: Mapping[str, Any]
    of: str | None = None

    def __str__(self) -> str:
        return f"{self.dataset}, {self.entry}, seed {self.seed}"


def read_comparison(file: Path) -> ComparisonFile:
    """
    Raises:
        ConfigError: The file cannot be read, or something in it is not known.
    """
    try:
        plan = ComparisonFile.model_validate({"seeds": (), **read_yaml(file)})
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, ComparisonFile)}") from error
    _check(plan, str(file))
    return plan


def _tune_seed(plan: ComparisonFile) -> int:
    return plan.seeds[0] if plan.tune_seed is None else plan.tune_seed


def _check(plan: ComparisonFile, what: str) -> None:
    if len(set(plan.seeds)) < len(plan.seeds):
        raise ConfigError(f"{what}: a seed is there twice")
    if empty := [key for key, values in plan.tune.items() if not values]:
        raise ConfigError(f"{what}: tune.{empty[0]} has no values to choose from")
    for name in (*plan.datasets, *plan.methods):
        if not NAME.fullmatch(name):
            raise ConfigError(f"{what}: the name {name!r} becomes a folder; take letters, digits, and any of _ . = + -")
    for name, entry in plan.methods.items():
        if "test_rows" in entry.settings.get("data", {}):
            raise ConfigError(f"{what}: method {name!r} has test_rows of its own; they have to be the same for all")
        check_method(entry.method or name, entry.options)
        if (entry.method or name) in REPEATS:
            repeated_by(plan, name)
    if plan.baseline not in plan.methods:
        raise ConfigError(f"{what}: the baseline {plan.baseline!r} is none of the methods {', '.join(plan.methods)}")


def repeated_by(plan: ComparisonFile, name: str) -> str:
    """The entry of PGKD that a control repeats.

    Raises:
        ConfigError: There is none, or there are several and the control names none.
    """
    runs = [other for other, entry in plan.methods.items() if (entry.method or other) == "pgkd"]
    wanted = plan.methods[name].of
    if wanted is None and len(runs) == 1:
        return runs[0]
    if wanted not in runs:
        raise ConfigError(f"method {name!r} repeats what PGKD accepted: say of which entry with `of`, one of {runs}")
    return wanted


def narrowed(
    plan: ComparisonFile,
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Settings | None = None,
) -> ComparisonFile:
    """A part of a plan; empty is all.

    Raises:
        ConfigError: The plan has no such dataset or method, or a control without what it repeats is left.
    """
    for what, wanted, known in (("dataset", datasets, plan.datasets), ("method", methods, plan.methods)):
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(f"the comparison has no {what} {unknown[0]!r}; it has {', '.join(known)}")
    overrides = overrides or {}
    named = {f"{section}.{key}" for section, keys in overrides.items() if isinstance(keys, dict) for key in keys}
    part = plan.model_copy(
        update={
            "datasets": {name: entry for name, entry in plan.datasets.items() if not datasets or name in datasets},
            "methods": {name: entry for name, entry in plan.methods.items() if not methods or name in methods},
            "seeds": tuple(seeds) or plan.seeds,
            "tune_seed": _tune_seed(plan),
            "tune": {key: values for key, values in plan.tune.items() if key not in named},
            "overrides": overrides,
        }
    )
    _check(part, "the part asked for")
    return part


def cells(plan: ComparisonFile, data: Path | None, tuned: Mapping[str, Settings]) -> list[Cell]:
    """All cells, a control after what it repeats.

    Args:
        data: Folder with a folder per dataset.
        tuned: What was chosen for each dataset.
    """
    names = sorted(plan.methods, key=lambda name: (plan.methods[name].method or name) in REPEATS)
    return [
        _cell(plan, name, dataset, seed, data, tuned.get(dataset, {}))
        for dataset, seed, name in product(plan.datasets, plan.seeds, names)
    ]


def tuning_cells(plan: ComparisonFile, dataset: str, data: Path | None) -> Iterator[tuple[Settings, Cell]]:
    """The plain student with every combination of the values to choose from."""
    seed = _tune_seed(plan)
    for values in product(*plan.tune.values()):
        chosen: Settings = {}
        for key, value in zip(plan.tune, values, strict=True):
            section, _, name = key.rpartition(".")
            chosen.setdefault(section, {})[name] = value
        source, config = _source_and_config(plan, dataset, seed, data, chosen)
        what = ", ".join(f"{key}={value}" for key, value in zip(plan.tune, values, strict=True))
        yield chosen, Cell(dataset, source, f"tuning {what}", seed, "plain", config, {})


def _cell(plan: ComparisonFile, name: str, dataset: str, seed: int, data: Path | None, tuned: Settings) -> Cell:
    entry = plan.methods[name]
    method = entry.method or name
    of = repeated_by(plan, name) if method in REPEATS else None
    repeated = plan.methods[of].settings if of else {}
    source, config = _source_and_config(plan, dataset, seed, data, tuned, repeated, entry.settings)
    return Cell(dataset, source, name, seed, method, config, entry.options, of)


def _source_and_config(
    plan: ComparisonFile, dataset: str, seed: int, data: Path | None, *layers: Settings
) -> tuple[Path | None, PGKDConfig]:
    entry = plan.datasets[dataset]
    name = entry.source or dataset
    folder = data / name if data and (data / name / TRAIN_FILE).is_file() else None
    if folder is None and name not in PRESETS:
        raise ConfigError(
            f"dataset {name!r} is neither one of {', '.join(PRESETS)} nor a folder with {TRAIN_FILE} in "
            f"{data or 'a data directory; name that with --data'}"
        )
    flags: Settings = {"seed": seed} if folder else {"seed": seed, "data.dataset": name, "data.data_dir": data}
    return folder, build_config(layers=(plan.settings, entry.settings, *layers, plan.overrides), flags=flags)
