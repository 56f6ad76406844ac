"""The cells of a comparison: each a method on a dataset with a seed, and the settings that it runs with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.data import PRESETS
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.compare.plan import (
    ComparisonFile,
    Plan,
    Settings,
    method_of,
    needed,
    repeated_by,
    seeds_of,
    tune_seed,
)
from pgkd_agent.experiments.methods import Method, method_named

TRAIN_FILE = "train.jsonl"
UNLABELLED_FILE = "unlabelled.jsonl"


@dataclass(frozen=True)
class Cell:
    """One training, or one round of questions, of a table.

    Attributes:
        source: The folder of its rows; None where the settings name one of the paper's datasets.
        of: The entry it repeats.
        of_seed: The seed of that, for a method that takes samples; one that takes counts takes those of its own seed.
        tokens_of: Entry and seed whose teacher tokens it may take at most.
    """

    dataset: str
    source: Path | None
    entry: str
    seed: int
    method: Method[Any]
    config: PGKDConfig
    options: Mapping[str, Any]
    of: str | None = None
    of_seed: int | None = None
    tokens_of: tuple[str, int] | None = None

    def __str__(self) -> str:
        return f"{self.dataset}, {self.entry}, seed {self.seed}"


def cells(plan: ComparisonFile, data: Path | None, tuned: Mapping[str, Settings]) -> list[Cell]:
    """All cells, each after what it repeats, else by dataset and seed.

    Args:
        data: Folder with a folder per dataset.
        tuned: What was chosen for each dataset.
    """
    found = [
        _cell(plan, name, dataset, seed, data, tuned.get(dataset, {}))
        for dataset, name in product(plan.datasets, plan.methods)
        for seed in seeds_of(plan, name)
    ]
    taken_from = [(cell.seed, *place) for cell in found for place in ((cell.of, cell.of_seed), cell.tokens_of) if place]
    of_other_seeds = {(name, seed) for own, name, seed in taken_from if name and seed not in (None, own)}
    first = {(other, seed) for name, seed in of_other_seeds for other in needed(plan, name)}
    datasets = list(plan.datasets)
    seeds = [*plan.seeds, *(seed for entry in plan.methods.values() for seed in entry.seeds)]

    def place(cell: Cell) -> tuple[int, bool, int, int]:
        is_later = (cell.entry, cell.seed) not in first
        return datasets.index(cell.dataset), is_later, seeds.index(cell.seed), len(needed(plan, cell.entry))

    return sorted(found, key=place)


def tuning_cells(plan: ComparisonFile, dataset: str, data: Path | None) -> Iterator[tuple[Settings, Cell]]:
    """The plain student with every combination of the values to choose from."""
    seed = tune_seed(plan)
    for values in product(*plan.tune.values()):
        chosen: Settings = {}
        for key, value in zip(plan.tune, values, strict=True):
            section, _, name = key.rpartition(".")
            chosen.setdefault(section, {})[name] = value
        source, config = source_and_config(plan, dataset, seed, data, chosen)
        what = ", ".join(f"{key}={value}" for key, value in zip(plan.tune, values, strict=True))
        yield chosen, Cell(dataset, source, f"tuning {what}", seed, method_named("plain"), config, {})


def _cell(plan: ComparisonFile, name: str, dataset: str, seed: int, data: Path | None, tuned: Settings) -> Cell:
    entry, method, of = plan.methods[name], method_of(plan, name), repeated_by(plan, name)
    layers = [tuned, *(plan.methods[one].settings for one in _chain(plan, of)), entry.settings]
    source, config = source_and_config(plan, dataset, seed, data, *layers)
    if method.all_rows:
        config = config.changed({"data.rows": None})
    of_seed = (*plan.methods[of].seeds, seed)[0] if of and method.repeats == "samples" else None
    tokens_of = None
    if entry.tokens_of:
        others = seeds_of(plan, entry.tokens_of)
        tokens_of = entry.tokens_of, seed if seed in others else others[0]
    return Cell(dataset, source, name, seed, method, config, entry.options, of, of_seed, tokens_of)


def _chain(plan: ComparisonFile, name: str | None) -> list[str]:
    """An entry behind those that it repeats in turn: a control of `frozen` has the settings of PGKD too."""
    return [] if name is None else [*_chain(plan, repeated_by(plan, name)), name]


def source_and_config(
    plan: Plan, dataset: str, seed: int, data: Path | None, *layers: Settings
) -> tuple[Path | None, PGKDConfig]:
    """The folder of a dataset's rows, None for one of the paper's; and the settings, later layers before earlier ones.

    Args:
        data: See `cells`.
    Raises:
        ConfigError: There is no such dataset, or a setting is not known.
    """
    entry = plan.datasets[dataset]
    name = entry.source or dataset
    folder = data / name if data and (data / name / TRAIN_FILE).is_file() else None
    if folder is None and name not in PRESETS:
        raise ConfigError(
            f"dataset {name!r} is neither one of {', '.join(PRESETS)} nor a folder with {TRAIN_FILE} in "
            f"{data or 'a data directory; name that with `data`'}"
        )
    flags: Settings = {"seed": seed} if folder else {"seed": seed, "data.dataset": name, "data.data_dir": data}
    return folder, build_config(layers=(plan.settings, entry.settings, *layers, plan.overrides), flags=flags)
