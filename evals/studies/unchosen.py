"""What recipes and amounts of written rows do to a student, each fit judged as it is.

    python evals/studies/unchosen.py runs/recipe --data DIR --dataset huffpost --set student.learning_rate=2e-4

`pgkd compare` judges the model that is returned, the plain student where the validation loss did not fall; here every
fit is judged, beside one with as many real rows of the same classes once more (`control`). The written rows are those
that the runs of PGKD in the folder of a comparison accepted, screened by the rows of the seed at hand:

* `own`: of the run with the same seed and rows;
* `likely`: those of them whose label is among the five that the plain student finds most probable;
* a number: so many, its own first, then those of runs with other seeds. They were written with other labelled rows in
  view, some of which this seed validates with, so their validation loss says little and they know of more rows.

Prints a line per fit, and Markdown with means and, in brackets, each seed's difference to its control.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import mean, stdev

from pgkd_agent import build_config
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.errors import DataError
from pgkd_agent.experiments.compare.plan import TRAIN_FILE
from pgkd_agent.experiments.methods.loops import repeated_rows
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import History, HistoryRow, texts_of
from pgkd_agent.loop.training import fit_history
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.pipeline import load_task
from pgkd_agent.runs.directory import read_lines
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, GeneratedSample, label_names

RECIPES: dict[str, dict[str, str | float]] = {
    "mixed": {},
    "synthetic_first": {"order": "synthetic_first"},
    "real_last": {"order": "real_last"},
    "weight_0.3": {"synthetic_weight": 0.3},
}
TOP = 5
"""Of the labels by the plain student's probability, for `likely`."""

Figures = dict[str, float]
Found = dict[str, dict[int, Figures]]
"""By what was fitted, and seed."""


def main() -> None:
    parser = study_parser(__doc__, "Settings as key=value.")
    parser.add_argument("--recipes", nargs="+", default=["mixed", "synthetic_first"], choices=RECIPES)
    parser.add_argument(
        "--rows", nargs="*", default=["own"], help="own, likely, or a number; none for the plain student alone."
    )
    options = parser.parse_args()
    found: Found = defaultdict(dict)
    for seed in options.seeds:
        task, config = drawn_task(options.data / options.dataset, options.set, seed)
        runs = options.comparison / "cells" / options.dataset / "pgkd"
        for what, figures in study(task, runs, config, options.rows, options.recipes):
            found[what][seed] = figures
            sys.stderr.write(json.dumps({"seed": seed, "what": what, **figures}) + "\n")
    sys.stdout.write(table(found))


def study_parser(about: str | None, settings: str) -> argparse.ArgumentParser:
    """What every study of written rows is told."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, help="Folder of a comparison with runs of PGKD.")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="+", default=[], help=settings)
    return parser


def drawn_task(data: Path, settings: Sequence[str], seed: int) -> tuple[Task, PGKDConfig]:
    """The rows that a comparison draws with this seed, and its settings."""
    assignments = ["data.rows=1000", "data.test_rows=1400", "student.name=minilm", *settings]
    config = build_config(assignments=assignments, flags={"seed": seed})
    labels = data / "labels.json"
    files = {"test": data / "test.jsonl", "labels": labels if labels.is_file() else None}
    return load_task(data / TRAIN_FILE, **files, config=config), config


def study(
    task: Task, runs: Path, config: PGKDConfig, rows: Sequence[str], recipes: Sequence[str]
) -> Iterator[tuple[str, Figures]]:
    """The fits of one seed."""
    student = TorchStudent(config.student, task.taxonomy, config.seed)
    started = time.perf_counter()
    fit_history(student, History.of(task.train), task.validation, 0, config.student)
    yield "plain", _figures(student, task, 0, started)
    if not rows:
        return
    number, written = written_rows(runs, task, config)
    ranked = (-student.predict(texts_of(written))).argsort(axis=1)[:, :TOP]
    names = label_names(task.taxonomy)
    likely = [row for row, best in zip(written[:number], ranked, strict=False) if names.index(row.label) in best]
    for which in rows:
        chosen = {"own": written[:number], "likely": likely}.get(which) or written[: int(which)]
        if which.isdigit() and len(chosen) < int(which):
            raise DataError(f"{which} rows are to be trained on, and the runs wrote {len(written)}")
        for kind, added in (("", chosen), ("control ", real_rows(task, chosen, config.seed))):
            history = History.of(task.train).extended([HistoryRow(row.text, row.label, 1) for row in added])
            for recipe in recipes:
                settings = config.student.model_copy(update=RECIPES[recipe])
                started = time.perf_counter()
                fit_history(student, history, task.validation, 1, settings)
                yield f"{kind}{which} {recipe}", _figures(student, task, len(added), started)


def written_rows(folder: Path, task: Task, config: PGKDConfig) -> tuple[int, list[Example]]:
    """How many are of the run on these rows, and those of all runs, its own first.

    Raises:
        DataError: There is not exactly one run on these rows.
    """
    runs = [read_lines(file.with_name("history.jsonl")) for file in sorted(folder.glob("*/run/result.json"))]
    real = [(row.text, row.label) for row in task.train]
    own = [run for run in runs if [(row["text"], row["label"]) for row in run if not row["kd_step"]] == real]
    if len(own) != 1:
        raise DataError(f"{folder} has {len(own)} runs on the rows of seed {config.seed}; expected one")
    rails = config.guardrails.model_copy(update={"max_per_class": sum(map(len, runs))})
    screener = Guardrails(rails, task.taxonomy, texts_of((*task.validation, *task.test)))
    history, counts = History.of(task.train), []
    for run in [*own, *(run for run in runs if run is not own[0])]:
        samples = [GeneratedSample(row["text"], row["label"]) for row in run if row["kd_step"]]
        screened = screener.screen(samples, history, frozenset())
        history = history.extended([HistoryRow(row.text, row.label, 1) for row in screened.accepted])
        counts.append(len(screened.accepted))
    return counts[0], [Example(row.text, row.label) for row in history.rows if not row.is_real]


def real_rows(task: Task, like: Sequence[Example], seed: int) -> list[Example]:
    """Training rows once more, as many of each class, as the controls of comparisons take them."""
    rows: list[Example] = []
    for label, number in sorted(Counter(row.label for row in like).items()):
        rows += islice(repeated_rows(task.train, label, seed), number)
    return rows


def _figures(student: TorchStudent, task: Task, number: int, started: float) -> Figures:
    seconds = time.perf_counter() - started
    validation = evaluate(student.predict(texts_of(task.validation)), task.validation, task.taxonomy)
    test = evaluate(student.predict(texts_of(task.test)), task.test, task.taxonomy)
    return {
        "rows": number,
        "validation loss": validation.loss,
        "test loss": test.loss,
        "accuracy": test.report.accuracy,
        "macro F1": test.report.macro_f1,
        "weighted F1": test.report.weighted_f1,
        "seconds": seconds,
    }


def table(found: Found) -> str:
    columns = [*found["plain"][min(found["plain"])]]
    lines = [f"| | {' | '.join(columns)} |", f"|{' --- |' * (len(columns) + 1)}"]
    for what, by_seed in found.items():
        cells = []
        for column in columns:
            values = [figures[column] for figures in by_seed.values()]
            if column in ("rows", "seconds"):
                cells.append(f"{mean(values):.0f}")
                continue
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            control = found.get(f"control {what}", {})
            gains = [figures[column] - control[seed][column] for seed, figures in by_seed.items() if seed in control]
            gain = f" ({mean(gains):+.3f}: {', '.join(f'{one:+.3f}' for one in gains)})" if gains else ""
            cells.append(f"{mean(values):.3f}{spread}{gain}")
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
