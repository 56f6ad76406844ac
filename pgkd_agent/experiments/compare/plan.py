"""A comparison as a YAML file: methods, datasets, seeds, and what is the same for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgkd_agent.config import explain, read_yaml
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods import Method, method_named

Settings = dict[str, Any]
"""Nested, as in a config file."""

NAME = re.compile(r"\w[\w.=+-]*")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class MethodEntry(_Record):
    """A line of the table."""

    method: str | None = None
    """Name of the method; None: that of the entry."""
    of: str | None = None
    """For a control, the entry whose accepted samples it repeats; for `frozen`, that of PGKD whose samples it trains
    on: those of its own seed, or, where that entry names `seeds`, of the first of these. None: the only one."""
    tokens_of: str | None = None
    """An entry whose teacher tokens are the most that this one may take, for methods that ask an LLM."""
    seeds: tuple[int, ...] = ()
    """Of this entry alone, e.g. one seed of PGKD, whose samples `frozen` takes for all; none: those of the file."""
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


class Plan(_Record):
    """What files of comparisons and of prompt evaluations have in common."""

    about: str = ""
    """What is compared, and what is known of it before it starts."""
    hours: float | None = None
    """What all of it takes, and of which machine `about` says."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """A run for each."""
    settings: Settings = Field(default_factory=dict)
    """Of all methods and datasets."""
    tune_seed: int | None = None
    """Seed of the runs that choose; None: the first one."""
    tune: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Dotted settings and values to choose from, for each dataset, by the validation loss of the plain student. All
    methods get the choice."""
    datasets: dict[str, DatasetEntry] = Field(min_length=1)
    """By the name that the table shows."""
    overrides: Settings = Field(default_factory=dict)
    """Before all other settings: what the command line says."""


PlanT = TypeVar("PlanT", bound=Plan)


class ComparisonFile(Plan):
    """What `pgkd compare` reads."""

    baseline: str = "plain"
    """The entry that differences are from."""
    methods: dict[str, MethodEntry] = Field(min_length=1)
    """By the name that the table shows."""
    paper: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """The paper's figures, by dataset, entry and metric, to stand beside the measured ones."""


def read_comparison(file: Path, baseline: str | None = None) -> ComparisonFile:
    """
    Args:
        baseline: Another one than the file says.
    Raises:
        ConfigError: The file cannot be read, or something in it is not known.
    """
    plan = read_plan(file, ComparisonFile)
    plan = plan.model_copy(update={"baseline": baseline or plan.baseline})
    check_comparison(plan, str(file))
    return plan


def read_plan(file: Path, kind: type[PlanT]) -> PlanT:
    """
    Raises:
        ConfigError: The file cannot be read, or something in it is not known.
    """
    try:
        return kind.model_validate({"seeds": (), **read_yaml(file)})
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, kind)}") from error


def tune_seed(plan: ComparisonFile) -> int:
    return plan.seeds[0] if plan.tune_seed is None else plan.tune_seed


def check_seeds(seeds: Sequence[int], what: str) -> None:
    """
    Raises:
        ConfigError: One is there twice.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{what}: a seed is there twice")


def check_names(names: Iterable[str], what: str) -> None:
    """
    Raises:
        ConfigError: One cannot be the name of a folder.
    """
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(f"{what}: the name {name!r} becomes a folder; take letters, digits, and any of _ . = + -")


def check_comparison(plan: ComparisonFile, what: str) -> None:
    """
    Raises:
        ConfigError: Something in it does not fit together.
    """
    for seeds in (plan.seeds, *(entry.seeds for entry in plan.methods.values())):
        check_seeds(seeds, what)
    if empty := [key for key, values in plan.tune.items() if not values]:
        raise ConfigError(f"{what}: tune.{empty[0]} has no values to choose from")
    check_names((*plan.datasets, *plan.methods), what)
    for name, entry in plan.methods.items():
        if "test_rows" in (entry.settings.get("data") or {}):
            raise ConfigError(f"{what}: method {name!r} has test_rows of its own; they have to be the same for all")
        method = method_of(plan, name)
        method.checked(entry.options)
        repeated = repeated_by(plan, name)
        of_one_seed = repeated and method.repeats == "samples" and plan.methods[repeated].seeds
        if repeated and not of_one_seed and not {*seeds_of(plan, name)} <= {*seeds_of(plan, repeated)}:
            raise ConfigError(f"{what}: method {name!r} has seeds that {repeated!r}, which it repeats, has not")
        if entry.tokens_of is not None:
            _check_tokens_of(plan, name, entry.tokens_of)
    if plan.baseline not in plan.methods:
        raise ConfigError(
            f"{what}: the baseline {plan.baseline!r} is none of the methods {', '.join(plan.methods)}; "
            "name one of them, in the file or with `baseline`"
        )


def _check_tokens_of(plan: ComparisonFile, name: str, of: str) -> None:
    asks = [other for other in plan.methods if method_of(plan, other).asks_llm and not plan.methods[other].tokens_of]
    if of not in asks or of == name or not method_of(plan, name).asks_llm:
        raise ConfigError(
            f"method {name!r}: tokens_of is {of!r}; it is for methods that ask an LLM, and names another of them that "
            f"has none itself: {', '.join(one for one in asks if one != name) or 'there is none'}"
        )


def repeated_by(plan: ComparisonFile, name: str) -> str | None:
    """The entry that one takes counts or samples from; None where its method repeats nothing.

    Raises:
        ConfigError: There is none, or there are several and none is named.
    """
    repeats, wanted = method_of(plan, name).repeats, plan.methods[name].of
    if repeats is None:
        if wanted is not None:
            raise ConfigError(f"method {name!r} repeats nothing; leave out `of`")
        return None
    loops = [other for other in plan.methods if repeats in method_of(plan, other).gives]
    if wanted is None and len(loops) == 1:
        return loops[0]
    if wanted not in loops:
        raise ConfigError(f"method {name!r} repeats what PGKD accepted: say of which entry with `of`, one of {loops}")
    return wanted


def method_of(plan: ComparisonFile, name: str) -> Method[Any]:
    """Of an entry.

    Raises:
        ConfigError: There is no such method.
    """
    return method_named(plan.methods[name].method or name)


def seeds_of(plan: ComparisonFile, name: str) -> tuple[int, ...]:
    """Of an entry."""
    return plan.methods[name].seeds or plan.seeds


def narrowed(
    plan: ComparisonFile,
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Settings | None = None,
) -> ComparisonFile:
    """A part of a plan; empty is all. What a method repeats comes along, with the seed that it is repeated from.

    Raises:
        ConfigError: The plan has no such dataset or method, or an override is about what makes a method itself.
    """
    for what, wanted, known in (("dataset", datasets, plan.datasets), ("method", methods, plan.methods)):
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(f"the comparison has no {what} {unknown[0]!r}; it has {', '.join(known)}")
    overrides = overrides or {}
    named = set(_dotted(overrides))
    wanted_methods = {other for name in methods or plan.methods for other in needed(plan, name)}
    part = plan.model_copy(
        update={
            "datasets": {name: entry for name, entry in plan.datasets.items() if not datasets or name in datasets},
            "methods": _of_seeds(plan, {name for name in plan.methods if name in wanted_methods}, seeds),
            "seeds": tuple(seeds) or plan.seeds,
            "tune_seed": tune_seed(plan),
            "tune": {key: values for key, values in plan.tune.items() if key not in named},
            "overrides": overrides,
        }
    )
    for name, entry in part.methods.items():
        if both := named & set(_dotted(entry.settings)):
            raise ConfigError(
                f"method {name!r} is about {min(both)}, which is set for all methods; leave one of them out"
            )
    check_comparison(part, "the part asked for")
    return part


def _dotted(settings: Settings) -> Iterator[str]:
    for section, keys in settings.items():
        if isinstance(keys, dict):
            yield from (f"{section}.{key}" for key in keys)
        else:
            yield section


def needed(plan: ComparisonFile, name: str) -> set[str]:
    """An entry, those whose samples, counts or tokens it takes, and what these take in turn."""
    direct = {other for other in (repeated_by(plan, name), plan.methods[name].tokens_of) if other}
    return {name}.union(*(needed(plan, other) for other in direct))


def _of_seeds(plan: ComparisonFile, names: set[str], seeds: Sequence[int]) -> dict[str, MethodEntry]:
    """Entries with seeds of their own keep those that are asked for; a run that others take from keeps all."""
    sources = {other for name in names for other in needed(plan, name) if other != name}
    kept = {}
    for name, entry in plan.methods.items():
        own = tuple(seed for seed in entry.seeds if not seeds or seed in seeds or name in sources)
        if name in names and (own or not entry.seeds):
            kept[name] = entry.model_copy(update={"seeds": own})
    return kept
