"""A filled grid as records, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import mean
from typing import Any

import numpy as np

from pgkd_agent.errors import StorageError
from pgkd_agent.experiments.compare.grid import Grid
from pgkd_agent.experiments.compare.markdown import cost_text, score_text, seconds_text, table
from pgkd_agent.experiments.compare.plan import ComparisonFile, seeds_of
from pgkd_agent.experiments.compare.records import Done
from pgkd_agent.metrics.intervals import METRICS, NOT_ASKED, Difference, Spread, paired_difference, spread

TIMED_TEXTS = 64

AMOUNTS = ("seeds", "test rows", "rows", "gradient steps", "calls", "tokens", "cost", "s", f"s for {TIMED_TEXTS} texts")
HEADINGS = {"accuracy": "accuracy", "macro_f1": "macro F1", "weighted_f1": "weighted F1"}


@dataclass(frozen=True)
class Line:
    """A method on a dataset, over its seeds.

    Attributes:
        metrics: On the test rows, by name.
        differences: From the baseline, over the seeds that both have; empty for the baseline itself.
        paper: The paper's figures, by metric.
        seeds: How many it has a result of.
        test_rows: Asked about.
        missing: Seeds without a result.
        rows, gradient_steps, requests, tokens, seconds: Means over the seeds.
        cost: Mean in the price table's currency, None where a price is not known.
        predict_seconds: For `TIMED_TEXTS` test rows; None where not known.
    """

    dataset: str
    entry: str
    metrics: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    paper: Mapping[str, float]
    seeds: int
    test_rows: int
    missing: tuple[int, ...]
    rows: float
    gradient_steps: float
    requests: float
    tokens: float
    cost: float | None
    seconds: float
    predict_seconds: float | None


def lines(plan: ComparisonFile, grid: Grid) -> list[Line]:
    """A line for each method that has a result, in the order of the file."""
    by_place: dict[tuple[str, str], dict[int, Done]] = defaultdict(dict)
    for cell in grid.done:
        by_place[cell.dataset, cell.entry][cell.seed] = cell
    result = []
    for dataset in plan.datasets:
        baseline = by_place[dataset, plan.baseline]
        for entry in plan.methods:
            if found := by_place[dataset, entry]:
                result.append(_line(plan, dataset, entry, found, {} if entry == plan.baseline else baseline))
    return result


def to_json(plan: ComparisonFile, grid: Grid) -> dict[str, Any]:
    return {
        "about": plan.about,
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "tuned": {dataset: dict(chosen) for dataset, chosen in grid.tuned.items()},
        "lines": [asdict(line) for line in lines(plan, grid)],
        "failures": dict(grid.failures),
    }


def to_csv(grid: Grid) -> str:
    """A row for each cell."""
    columns = ("dataset", "entry", "seed", "method")
    tokens = ("requests", "input_tokens", "output_tokens", "cost")
    amounts = ("rows", "gradient_steps", *tokens, "seconds", "predict_seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *METRICS, "validation_loss", *amounts])
    for cell in grid.done:
        scores = [_score(cell, metric) for metric in METRICS]
        chosen = [getattr(cell, name) for name in columns]
        writer.writerow([*chosen, *scores, cell.validation_loss, *(getattr(cell, name) for name in amounts)])
    return text.getvalue()


def to_markdown(plan: ComparisonFile, grid: Grid) -> str:
    """A table for each dataset."""
    shown = lines(plan, grid)
    parts = [plan.about] if plan.about else []
    parts.append(
        f"Mean ± standard deviation over seeds, on test rows. In brackets: what it has over {plan.baseline} on the "
        "seeds and test rows that both have, with the 95 % interval of a bootstrap over them."
    )
    for dataset in plan.datasets:
        here = [line for line in shown if line.dataset == dataset]
        has_paper = any(line.paper for line in here)
        headings = ["", *HEADINGS.values(), *(["in the paper"] if has_paper else []), *AMOUNTS]
        title = f"### {dataset}"
        if chosen := grid.tuned.get(dataset):
            title += "\n\nChosen on validation rows: " + ", ".join(
                f"{section}.{key} = {value}" for section, named in chosen.items() for key, value in named.items()
            )
        parts += [title, table(headings, [_cells(line, has_paper) for line in here])]
    missing = {f"{line.dataset}, {line.entry}, seed {seed}": "no result" for line in shown for seed in line.missing}
    notes = [f"* {cell}: {why}" for cell, why in {**missing, **grid.failures}.items()]
    if notes:
        parts.append("Missing:\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _line(
    plan: ComparisonFile, dataset: str, entry: str, found: Mapping[int, Done], baseline: Mapping[int, Done]
) -> Line:
    both = [seed for seed in found if seed in baseline]
    differences: Mapping[str, Difference] = {}
    if both:
        gold = _one_gold([*(found[seed] for seed in both), *(baseline[seed] for seed in both)])
        ours, theirs = (tuple(cells[seed].predicted for seed in both) for cells in (found, baseline))
        differences = _differences(gold, ours, theirs, found[both[0]].num_classes)
    cells = list(found.values())
    costs = [cell.cost for cell in cells]
    return Line(
        dataset=dataset,
        entry=entry,
        metrics={name: spread([_score(cell, name) for cell in cells]) for name in METRICS},
        differences=differences,
        paper=plan.paper.get(dataset, {}).get(entry, {}),
        seeds=len(cells),
        test_rows=sum(one != NOT_ASKED for one in cells[0].predicted),
        missing=tuple(seed for seed in seeds_of(plan, entry) if seed not in found),
        rows=mean(cell.rows for cell in cells),
        gradient_steps=mean(cell.gradient_steps for cell in cells),
        requests=mean(cell.requests for cell in cells),
        tokens=mean(cell.input_tokens + cell.output_tokens for cell in cells),
        cost=None if None in costs else mean(cost for cost in costs if cost is not None),
        seconds=mean(cell.seconds for cell in cells),
        predict_seconds=_seconds_per_batch(cells),
    )


@lru_cache(maxsize=1024)
def _differences(
    gold: tuple[int, ...], ours: tuple[tuple[int, ...], ...], theirs: tuple[tuple[int, ...], ...], num_classes: int
) -> Mapping[str, Difference]:
    """By metric, on the rows that all were asked about; kept, since each form of a table asks for the same ones."""
    gold_ids, our_ids, their_ids = np.array(gold), np.array(ours), np.array(theirs)
    asked = ((our_ids != NOT_ASKED) & (their_ids != NOT_ASKED)).all(axis=0)
    return {
        name: paired_difference(metric, gold_ids[asked], our_ids[:, asked], their_ids[:, asked], num_classes)
        for name, metric in METRICS.items()
    }


def _one_gold(cells: Sequence[Done]) -> tuple[int, ...]:
    if len({cell.gold for cell in cells}) > 1:
        raise StorageError(f"the cells of {cells[0].dataset} were measured on different test rows")
    return cells[0].gold


def _score(cell: Done, metric: str) -> float:
    gold, predicted = np.array(cell.gold), np.array(cell.predicted)
    asked = predicted != NOT_ASKED
    return METRICS[metric](gold[asked], predicted[asked], cell.num_classes)


def _seconds_per_batch(cells: Sequence[Done]) -> float | None:
    """For as many texts as the paper's Table 5 times."""
    known = [
        cell.predict_seconds / sum(one != NOT_ASKED for one in cell.predicted) * TIMED_TEXTS
        for cell in cells
        if cell.predict_seconds is not None
    ]
    return mean(known) if known else None


def _cells(line: Line, has_paper: bool) -> list[str]:
    scores = [score_text(line.metrics[name], line.differences.get(name)) for name in METRICS]
    paper = ", ".join(f"{HEADINGS.get(name, name)} {value:g}" for name, value in line.paper.items())
    amounts = (line.seeds, line.test_rows, line.rows, line.gradient_steps, line.requests, line.tokens)
    numbers = [f"{value:,.0f}" for value in amounts]
    seconds = [f"{line.seconds:,.0f}", seconds_text(line.predict_seconds)]
    return [line.entry, *scores, *([paper] if has_paper else []), *numbers, cost_text(line.cost), *seconds]
