"""Prompts that label texts against each other: on training rows whose label the teacher is not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.errors import PGKDError, StorageError
from pgkd_agent.experiments.compare import read_task, source_and_config
from pgkd_agent.experiments.compare.markdown import NOT_MEASURED, cost_text, seconds_text, table
from pgkd_agent.experiments.prompt_evals.suite import PromptSuite, shown_name, trials
from pgkd_agent.files import lock
from pgkd_agent.loop.trust import GoldCheck, GoldRow, accuracy
from pgkd_agent.metrics.intervals import Measured
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.labelling import CachedEmbedder, Labelling, LabellingTeacher, Pool
from pgkd_agent.teacher.opening import annotation_prompt
from pgkd_agent.teacher.standalone import open_annotator

COLUMNS = ("", "rows", "LLM", "both", "gain", "over the first", "no class", "tokens in / out", "cost", "s a call")


@dataclass
class LabellingResult:
    """A variant with a teacher on a dataset.

    Attributes:
        checks: By seed.
        work: Of all seeds, the calls of earlier evaluations among it.
        over_first: Of each row's gain over that with the first variant of the same teacher; None of that one itself.
        cost: In the currency of the price table; None where it is not known.
        failures: Why a part of it is missing, in words.
    """

    dataset: str
    variant: str
    teacher: str
    checks: dict[int, GoldCheck] = field(default_factory=dict)
    work: Labelling = field(default_factory=Labelling)
    over_first: Measured | None = None
    cost: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return shown_name(self.variant, self.teacher)

    @property
    def rows(self) -> list[GoldRow]:
        """Of all seeds."""
        return [row for check in self.checks.values() for row in check.rows]

    @property
    def gain(self) -> Measured:
        """Of the rows, of which there has to be one."""
        return Measured.of([row.gain for row in self.rows])


def evaluate_labelling(
    suite: PromptSuite,
    data: Path | None,
    out: Path,
    on_check: Callable[[str], None] = lambda sentence: None,
    only_stored: bool = False,
) -> list[LabellingResult]:
    """Ask what is not in `out` yet: each variant about the same rows, those that the other rows leave most in doubt.

    Calls are kept in `calls/DATASET-SEED.sqlite`; what is there is not asked again.

    Args:
        on_check: Told what came of each.
        only_stored: Ask nothing.
    Raises:
        ConfigError, PromptError: A setting, prompt or dataset is not known; nothing is asked.
        StorageError: Another process works in `out`.
    """
    results = {
        (dataset, trial): LabellingResult(dataset, *trial) for dataset in suite.datasets for trial in _names(suite)
    }
    planned = {
        (dataset, seed, (trial.variant, trial.teacher)): source_and_config(
            suite, dataset, seed, data, {"teacher": {**trial.settings, "label_prompt": trial.prompt}}
        )
        for dataset, seed, trial in product(suite.datasets, suite.seeds, trials(suite))
    }
    for _source, config in planned.values():
        annotation_prompt(config.teacher)
    held = lock(out / ".lock", str(out))
    try:
        rows: dict[tuple[str, int], _Rows] = {}
        for (dataset, seed, trial), (source, config) in planned.items():
            result = results[dataset, trial]
            calls = out / "calls" / f"{dataset}-{seed}.sqlite"
            try:
                if only_stored and not calls.exists():
                    raise StorageError("not run yet")
                here = rows[dataset, seed] = rows.get((dataset, seed)) or _Rows(read_task(source, config), config)
                _check(result, seed, here, config, calls, only_stored)
            except PGKDError as error:
                result.failures.append(f"seed {seed}: {error}")
            said = result.checks.get(seed) or result.failures[-1]
            on_check(f"{dataset}, {result.name}, seed {seed}: {said}")
    finally:
        held.release()
    _compare([*results.values()])
    return [*results.values()]


def _names(suite: PromptSuite) -> list[tuple[str, str]]:
    return [(trial.variant, trial.teacher) for trial in trials(suite)]


class _Rows:
    """Of a dataset and seed: `pool` has no texts, since the gold rows are known by their embeddings alone."""

    def __init__(self, task: Task, config: PGKDConfig) -> None:
        from pgkd_agent.student.embedding import Embedder
        from pgkd_agent.student.head_start import class_texts

        self.task = task
        self.pool = Pool((), _no_student, CachedEmbedder(Embedder(config.student)), class_texts(task.taxonomy))


def _check(result: LabellingResult, seed: int, rows: _Rows, config: PGKDConfig, calls: Path, only_stored: bool) -> None:
    prices, task = load_prices(config.teacher.prices), rows.task

    def keep(check: GoldCheck) -> None:
        result.checks[seed] = check

    budget = Budget(config.budget, prices)
    with open_annotator(task.taxonomy, task.description, config, budget, calls, only_stored) as annotator:
        teacher = LabellingTeacher(annotator, rows.pool, task.train, task.taxonomy, seed, on_gold=keep)
        done = teacher.label(kd_step=0, num=0)
        result.work.add(done)
        result.cost = prices.cost(annotator.model_id, result.work.usage)
    if done.stopped_by:
        result.failures.append(f"seed {seed}: {done.stopped_by}")


def _no_student(texts: Sequence[str]) -> Any:
    raise AssertionError("no text is chosen")


def _compare(results: Sequence[LabellingResult]) -> None:
    firsts: dict[tuple[str, str], LabellingResult] = {}
    for result in results:
        first = firsts.setdefault((result.dataset, result.teacher), result)
        differences = [
            row.gain - other.gain
            for seed in result.checks.keys() & first.checks.keys()
            for row, other in zip(result.checks[seed].rows, first.checks[seed].rows, strict=True)
        ]
        if differences and first is not result:
            result.over_first = Measured.of(differences)


def labelling_to_json(suite: PromptSuite, results: Sequence[LabellingResult]) -> dict[str, Any]:
    return {"about": suite.about, "seeds": list(suite.seeds), "prompts": [_record(result) for result in results]}


def _record(result: LabellingResult) -> dict[str, Any]:
    rows = result.rows
    return {
        "dataset": result.dataset,
        "variant": result.variant,
        "teacher": result.teacher,
        "right": {who: accuracy(rows, who) for who in ("rows_alone", "teacher", "together")} if rows else {},
        "gain": asdict(result.gain) if rows else None,
        "over_first": asdict(result.over_first) if result.over_first else None,
        "requests": result.work.num_requests,
        "unreadable": result.work.num_unreadable,
        "input_tokens": result.work.usage.input_tokens if result.work.usage.is_known else None,
        "output_tokens": result.work.usage.output_tokens if result.work.usage.is_known else None,
        "cost": result.cost,
        "seconds": result.work.seconds,
        "rows": {seed: [asdict(row) for row in one.rows] for seed, one in result.checks.items()},
        "failures": result.failures,
    }


def labelling_to_markdown(suite: PromptSuite, results: Sequence[LabellingResult]) -> str:
    """A table for each dataset."""
    parts = [suite.about] if suite.about else []
    parts.append(
        "Each variant is asked about the same training rows, whose label it is not shown: of each seed "
        f"({', '.join(map(str, suite.seeds))}) those that the other rows leave most in doubt. *LLM* and *both*: how "
        "many the teacher names right, and how many it and the other rows together. *Gain*: by how many nats the right "
        "class is likelier by both than by the other rows alone, with its standard error; *over the first*: how much "
        "of that it has over the variant in the first line, row by row."
    )
    for dataset in suite.datasets:
        here = [result for result in results if result.dataset == dataset]
        parts += [f"### {dataset}", table(COLUMNS, list(_lines(here)))]
    failures = [f"* {result.dataset}, {result.name}, {why}" for result in results for why in result.failures]
    if failures:
        parts.append("Not measured:\n\n" + "\n".join(failures))
    return "\n\n".join(parts) + "\n"


def _lines(results: Sequence[LabellingResult]) -> Iterator[list[str]]:
    if known := next((result.rows for result in results if result.rows), None):
        alone = f"{accuracy(known, 'rows_alone'):.3f}"
        yield ["the other rows alone", str(len(known)), "", alone, *[""] * (len(COLUMNS) - 4)]
    for result in results:
        if not (rows := result.rows):
            yield [result.name, *[NOT_MEASURED] * (len(COLUMNS) - 1)]
            continue
        work, usage = result.work, result.work.usage
        yield [
            result.name,
            str(len(rows)),
            f"{accuracy(rows, 'teacher'):.3f}",
            f"{accuracy(rows, 'together'):.3f}",
            _measured(result.gain),
            _measured(result.over_first) if result.over_first else "",
            str(sum(row.teacher is None for row in rows)),
            f"{usage.input_tokens:,} / {usage.output_tokens:,}" if usage.is_known else "not known",
            cost_text(result.cost),
            seconds_text(work.seconds / max(work.num_requests, 1)),
        ]


def _measured(value: Measured) -> str:
    return f"{value.mean:+.3f} ± {value.error:.3f}"
