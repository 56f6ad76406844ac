"""What recipes and amounts of written rows do to a student, each fit judged as it is.

    python evals/studies/unchosen.py runs/recipe --data DIR --dataset huffpost

`pgkd compare` judges the model that is returned, the plain student where the validation loss did not fall; here every
fit is judged. The written rows are those that the runs of PGKD in the folder of a comparison accepted, screened by the
rows of the seed at hand; `own` are those of the run with this seed, `likely` those of them whose label is among the
plain student's first five, `700` as many of all runs, this seed's first. `control` and `control700` have as many real
rows of the same classes instead. Prints a line per fit, and Markdown with means and what each seed has over its plain
student.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from pgkd_agent import build_config
from pgkd_agent.compare.plan import TRAIN_FILE
from pgkd_agent.config import PGKDConfig
from pgkd_agent.curriculum import fit_history
from pgkd_agent.data import Task
from pgkd_agent.guardrails import Guardrails
from pgkd_agent.history import History, HistoryRow, texts_of
from pgkd_agent.metrics import evaluate
from pgkd_agent.pipeline import load_task
from pgkd_agent.runs import read_lines
from pgkd_agent.seeding import rng
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, GeneratedSample, label_names

RECIPES: dict[str, dict[str, str | float]] = {
    "mixed": {},
    "synthetic_first": {"order": "synthetic_first"},
    "real_last": {"order": "real_last"},
    "weight_0.3": {"synthetic_weight": 0.3},
    "first_0.3": {"order": "synthetic_first", "synthetic_weight": 0.3},
}
COLUMNS = ("rows", "validation loss", "test loss", "accuracy", "macro F1", "weighted F1")
TOP = 5
"""Of the labels by the plain student's probability, for `likely`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="Folder of a comparison with runs of PGKD.")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="+", default=["mixed", "synthetic_first"], choices=RECIPES)
    parser.add_argument("--rows", nargs="+", default=["own", "control"], help="own, likely, control, 700, control700.")
    parser.add_argument("--set", nargs="+", default=[], help="Settings as key=value.")
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in options.seeds:
        config = build_config(
            assignments=["data.rows=1000", "data.test_rows=1400", "student.name=minilm", *options.set],
            flags={"seed": seed},
        )
        folder = options.data / options.dataset
        labels = folder / "labels.json"
        task = load_task(
            folder / TRAIN_FILE,
            test=folder / "test.jsonl",
            labels=labels if labels.is_file() else None,
            config=config,
        )
        student = TorchStudent(config.student, task.taxonomy, seed)
        student.fit(task.train, task.validation, 0)
        _say(found, seed, "plain", 0, student, task, time.perf_counter())
        own, every = _written(options.out / "cells" / options.dataset / "pgkd", seed, task, config)
        ranked = (-student.predict(texts_of(every))).argsort(axis=1)[:, :TOP]
        names = label_names(task.taxonomy)
        for which in options.rows:
            rows = every[:own]
            if which == "likely":  # to the plain student
                rows = [row for row, best in zip(rows, ranked, strict=False) if names.index(row.label) in best]
            elif which.startswith("control"):
                rows = _real(task, every[: int(which[7:] or own)], seed)
            elif which != "own":
                rows = every[: int(which)]
            history = History.of(task.train).extended([HistoryRow(row.text, row.label, 1) for row in rows])
            for recipe in options.recipes:
                settings = config.student.model_copy(update=RECIPES[recipe])
                started = time.perf_counter()
                fit_history(student, history, task.validation, 1, settings)
                _say(found, seed, f"{which} {recipe}", len(rows), student, task, started)
    _table(found)


def _written(folder: Path, seed: int, task: Task, config: PGKDConfig) -> tuple[int, list[Example]]:
    """How many are of this seed's run, and those of all runs, these first."""
    runs = sorted(folder.glob("*-*/run/history.jsonl"), key=lambda file: not file.parts[-3].startswith(f"{seed}-"))
    rails = config.guardrails.model_copy(update={"max_per_class": 10_000})
    screener = Guardrails(rails, task.taxonomy, texts_of((*task.validation, *task.test)))
    history, counts = History.of(task.train), []
    for file in runs:
        samples = [GeneratedSample(row["text"], row["label"]) for row in read_lines(file) if row["kd_step"]]
        screened = screener.screen(samples, history, frozenset())
        history = history.extended([HistoryRow(row.text, row.label, 1) for row in screened.accepted])
        counts.append(len(screened.accepted))
    return counts[0], [Example(row.text, row.label) for row in history.rows if not row.is_real]


def _real(task: Task, like: Sequence[Example], seed: int) -> list[Example]:
    """Training rows once more, as many of each class; of a class without any, rows of all classes."""
    rows: list[Example] = []
    for label, number in sorted(Counter(row.label for row in like).items()):
        own = [row for row in task.train if row.label == label] or list(task.train)
        rng(seed, 0, f"repeat/{label}").shuffle(own)
        rows += islice(cycle(own), number)
    return rows


def _say(
    found: dict[str, list[list[float]]],
    seed: int,
    what: str,
    number: int,
    student: TorchStudent,
    task: Task,
    started: float,
) -> None:
    validation = evaluate(student.predict(texts_of(task.validation)), task.validation, task.taxonomy)
    test = evaluate(student.predict(texts_of(task.test)), task.test, task.taxonomy)
    values = [number, validation.loss, test.loss, test.report.accuracy, test.report.macro_f1, test.report.weighted_f1]
    found[what].append(values)
    line = dict(
        zip(("rows", "validation_loss", "test_loss", "accuracy", "macro_f1", "weighted_f1"), values, strict=True)
    )
    seconds = round(time.perf_counter() - started)
    sys.stderr.write(json.dumps({"seed": seed, "what": what, **line, "seconds": seconds}) + "\n")


def _table(found: dict[str, list[list[float]]]) -> None:
    sys.stdout.write(f"| | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}\n")
    plain = np.array(found["plain"])
    for what, rows in found.items():
        table = np.array(rows)
        cells = [f"{mean(table[:, 0]):.0f}"]
        for column in range(1, table.shape[1]):
            values, gains = table[:, column], table[:, column] - plain[: len(table), column]
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            gain = "" if what == "plain" else f" ({mean(gains):+.3f}: {', '.join(f'{one:+.3f}' for one in gains)})"
            cells.append(f"{mean(values):.3f}{spread}{gain}")
        sys.stdout.write(f"| {what} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
