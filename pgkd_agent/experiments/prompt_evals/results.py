"""Fill a suite, and put the teacher's work beside what students make of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pgkd_agent.errors import PGKDError
from pgkd_agent.experiments.compare import ComparisonFile, Grid, Line, fill, lines
from pgkd_agent.experiments.compare.grid import OnProgress
from pgkd_agent.experiments.prompt_evals.suite import REFERENCES, PromptSuite, Trial, trials
from pgkd_agent.experiments.prompt_evals.teaching import Teaching, read_teaching
from pgkd_agent.experiments.zero_shot import evaluate_zero_shot, with_description
from pgkd_agent.files import read_lines
from pgkd_agent.metrics.intervals import Difference, Spread
from pgkd_agent.runs.stored import read_run
from pgkd_agent.types import Example

MeasuredT = TypeVar("MeasuredT")

RATES = ("parse_rate", "accept_rate")
"""Of the teaching, for the gate."""


@dataclass(frozen=True)
class PromptResult:
    """A variant with a teacher on a dataset. What could not be measured is None, never 0.

    Attributes:
        agreement: Share of the accepted samples that the teacher labels as it wrote them.
        students: Metrics on the test rows over seeds, by name.
        differences: From the plain student, over the seeds that both have.
        failures: Why a part of it is missing, in words.
    """

    dataset: str
    variant: str
    teacher: str
    teaching: Teaching | None
    agreement: float | None
    students: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    failures: tuple[str, ...]


def evaluate_prompts(
    suite: PromptSuite,
    plan: ComparisonFile,
    data: Path | None,
    out: Path,
    on_progress: OnProgress = lambda progress: None,
    only_stored: bool = False,
) -> tuple[Grid, list[PromptResult]]:
    """Run what is not in `out` yet; replies that are there are not asked for again.

    Args:
        plan: Of the suite, or a part of it (`to_comparison`).
        only_stored: Run nothing.
    Raises:
        PGKDError: See `fill`.
    """
    grid = fill(plan, data, out, on_progress, only_stored)
    by_place = {(line.dataset, line.entry): line for line in lines(plan, grid)}
    return grid, [
        _result(suite, grid, dataset, trial, by_place.get((dataset, trial.trained)), only_stored)
        for dataset in plan.datasets
        for trial in trials(suite)
        if trial.trained in plan.methods
    ]


def _result(
    suite: PromptSuite, grid: Grid, dataset: str, trial: Trial, students: Line | None, only_stored: bool
) -> PromptResult:
    run = _run_of(grid, dataset, trial)
    failures = _failures(grid, dataset, (trial.asked, trial.trained))
    teaching = _or_why(partial(read_teaching, run), "teacher", failures) if run else None
    agreement = None
    if run and suite.verify:
        agreement = _or_why(partial(_agreement, run, only_stored), "verification", failures)
    return PromptResult(
        dataset=dataset,
        variant=trial.variant,
        teacher=trial.teacher,
        teaching=teaching,
        agreement=agreement,
        students=students.metrics if students else {},
        differences=students.differences if students else {},
        failures=tuple(failures),
    )


def to_json(suite: PromptSuite, plan: ComparisonFile, grid: Grid, results: Sequence[PromptResult]) -> dict[str, Any]:
    return {
        "about": suite.about,
        "seeds": list(plan.seeds),
        "tuned": {dataset: dict(chosen) for dataset, chosen in grid.tuned.items()},
        "references": [asdict(line) for line in lines(plan, grid) if line.entry in REFERENCES],
        "prompts": [_record(result) for result in results],
        "failures": dict(grid.failures),
    }


def _record(result: PromptResult) -> dict[str, Any]:
    record = asdict(result)
    if result.teaching:
        record["teaching"] |= {rate: getattr(result.teaching, rate) for rate in (*RATES, "repetition_rate")}
    return record


def _run_of(grid: Grid, dataset: str, trial: Trial) -> Path | None:
    """The directory of the run in which the variant was asked."""
    folders = [
        folder for (where, entry, _seed), folder in grid.folders.items() if (where, entry) == (dataset, trial.asked)
    ]
    return folders[0] / "run" if folders else None


def _or_why(measure: Callable[[], MeasuredT], what: str, failures: list[str]) -> MeasuredT | None:
    """None, and why, where it cannot be measured: the other figures are not lost to it."""
    try:
        return measure()
    except PGKDError as error:
        failures.append(f"{what}: {error}")
        return None


def _agreement(run: Path, only_stored: bool) -> float | None:
    """Answers are kept beside the run, and asked for once."""
    rows = [Example(row["text"], row["label"]) for row in read_lines(run / "history.jsonl") if row["kd_step"] > 0]
    answers = run.with_name("verification.jsonl")
    if not rows or (only_stored and len(read_lines(answers)) <= len(rows)):  # a first line says whose they are
        return None
    stored = read_run(run)
    config = with_description(stored.config, stored.task)
    return evaluate_zero_shot(rows, stored.task.taxonomy, config, answers).report.accuracy


def _failures(grid: Grid, dataset: str, entries: Sequence[str]) -> list[str]:
    """One for each reason, with the seeds that it holds for."""
    seeds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cell, why in grid.failures.items():
        where, entry, *seed = cell.split(", ")
        if where == dataset and entry in entries:
            seeds["students" if entry == entries[-1] else "teacher", why].append(seed[0].removeprefix("seed "))
    return [f"{what}, seed {', '.join(found)}: {why}" for (what, why), found in seeds.items()]
