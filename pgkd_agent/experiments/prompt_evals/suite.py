"""A suite of prompt variants as a YAML file, and the comparison that it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import Field

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.compare.plan import (
    ComparisonFile,
    MethodEntry,
    Plan,
    Settings,
    check_comparison,
    check_names,
    check_seeds,
    narrowed,
    read_plan,
)
from pgkd_agent.teacher.prompting.templates import is_path

PLAIN, CONTROL = "plain", "control"
REFERENCES = {PLAIN: "plain student", CONTROL: "control: as many real rows again"}
"""Entries without a teacher: the student on the real rows, and with as many of them once more as the first variant's
samples."""
ASKED = ".asked"
"""Ends the names of the entries in which the teacher writes."""


class PromptSuite(Plan):
    """What `pgkd eval prompts` reads.

    Each variant is asked in one run of PGKD, with the first seed; students of all seeds train on what was accepted.
    Variants of `annotate` are asked about training rows whose label they are not shown, of each seed.
    """

    purpose: Literal["pgkd", "annotate"] = "pgkd"
    """Folder of `prompts/` that the variants are of: such as write samples, or such as label texts."""
    variants: tuple[str, ...] = Field(min_length=1)
    """Names of prompts, or paths of templates."""
    teachers: dict[str, Settings] = Field(default_factory=dict)
    """Settings of the section `teacher` by the name that the table shows; none: the teacher of `settings`."""
    verify: bool = False
    """Have the teacher label what was accepted, a call a sample, to see how often it agrees with itself."""


@dataclass(frozen=True)
class Trial:
    """A variant with a teacher; `asked` and `trained` are entries of the comparison.

    Attributes:
        variant: The name of the template.
        teacher: Empty where there is only one.
    """

    variant: str
    teacher: str
    prompt: str
    settings: Settings

    @property
    def trained(self) -> str:
        return f"{self.variant}+{self.teacher}" if self.teacher else self.variant

    @property
    def asked(self) -> str:
        return self.trained + ASKED


def read_suite(file: Path) -> PromptSuite:
    """
    Raises:
        ConfigError: The file cannot be read, or something in it is not known or does not fit together.
    """
    suite = read_plan(file, PromptSuite)
    if suite.purpose == "pgkd":
        to_comparison(suite, what=str(file))
    elif suite.tune or suite.verify:
        raise ConfigError(f"{file}: where texts are labelled no student is tuned, and nothing is verified")
    else:
        part_of(suite, what=str(file))
    return suite


def part_of(
    suite: PromptSuite,
    datasets: Sequence[str] = (),
    variants: Sequence[str] = (),
    overrides: Settings | None = None,
    what: str = "the suite",
) -> PromptSuite:
    """With these datasets and variants; none are all.

    Raises:
        ConfigError: Two variants have one name, or there is no such dataset or variant.
    """
    _variant_names(suite, variants, what)
    check_seeds(suite.seeds, what)
    check_names(suite.datasets, what)
    given = {*(overrides or {}).get("teacher", {})}
    if both := given & {"label_prompt", *(key for settings in suite.teachers.values() for key in settings)}:
        raise ConfigError(f"teacher.{min(both)} is what {what} compares, and is set for all of it; leave that out")
    if unknown := [name for name in datasets if name not in suite.datasets]:
        raise ConfigError(f"{what} has no dataset {unknown[0]!r}; it has {', '.join(suite.datasets)}")
    return suite.model_copy(
        update={
            "datasets": {name: entry for name, entry in suite.datasets.items() if not datasets or name in datasets},
            "variants": tuple(prompt for prompt in suite.variants if not variants or _name(prompt) in variants),
            "overrides": overrides or {},
        }
    )


def trials(suite: PromptSuite) -> list[Trial]:
    """All variants with all teachers, in the order of the file."""
    return [
        Trial(_name(prompt), teacher, prompt, settings)
        for prompt, (teacher, settings) in product(suite.variants, suite.teachers.items() or [("", {})])
    ]


def to_comparison(
    suite: PromptSuite,
    datasets: Sequence[str] = (),
    variants: Sequence[str] = (),
    overrides: Settings | None = None,
    what: str = "the suite",
) -> ComparisonFile:
    """The comparison to fill, or a part of it.

    Raises:
        ConfigError: Two variants have one name, or there is no such dataset or variant.
    """
    names = _variant_names(suite, variants, what)
    if reserved := [name for name in names if name in REFERENCES or name.endswith(ASKED)]:
        raise ConfigError(f"{what}: {reserved[0]!r} means something else here; give that template another name")
    chosen = [trial for trial in trials(suite) if not variants or trial.variant in variants]
    methods = {
        PLAIN: MethodEntry(),
        CONTROL: MethodEntry(of=chosen[0].trained),
        **dict(_entries(chosen, suite.seeds[:1])),
    }
    shared = {name: getattr(suite, name) for name in Plan.model_fields}
    plan = ComparisonFile(**shared, baseline=PLAIN, methods=methods)
    check_comparison(plan, what)
    return narrowed(plan, datasets, overrides=overrides)


def _variant_names(suite: PromptSuite, wanted: Sequence[str], what: str) -> list[str]:
    """
    Raises:
        ConfigError: Two variants have one name, or one that is wanted is not there.
    """
    names = [_name(prompt) for prompt in suite.variants]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{what}: there are two variants {min(twice)!r}; give the templates different names")
    if unknown := [name for name in wanted if name not in names]:
        raise ConfigError(f"{what} has no variant {unknown[0]!r}; it has {', '.join(names)}")
    return names


def _entries(chosen: Sequence[Trial], seed: tuple[int, ...]) -> Iterator[tuple[str, MethodEntry]]:
    for trial in chosen:
        settings = {"teacher": {**trial.settings, "prompt": trial.prompt}}
        yield trial.asked, MethodEntry(method="pgkd", seeds=seed, settings=settings)
        yield trial.trained, MethodEntry(method="frozen", of=trial.asked)


def shown_name(variant: str, teacher: str) -> str:
    """Of a variant with a teacher, in tables."""
    return f"{variant}, {teacher}" if teacher else variant


def _name(prompt: str) -> str:
    """Of a variant its own, of a template its file's."""
    return Path(prompt).stem if is_path(prompt) else prompt
