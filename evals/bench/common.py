"""What contenders share; the standard library only at the top, since rivals run without the package.

A contender is a module, `python -m evals.bench.NAME`. The last line of its output is JSON: its figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import median
from typing import Any

TEST_SEED = 0
"""Which test rows are taken; the same for every seed of the training."""

Row = tuple[str, str]
"""Text and label."""


def read_rows(file: Path) -> list[Row]:
    """The `text` and `label` of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def read_labels(folder: Path) -> list[str]:
    names = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    return [name if isinstance(name, str) else name["name"] for name in names]


def draw(rows: Sequence[Row], number: int | None, seed: int) -> list[Row]:
    """The same rows in every environment; None takes all."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order[:number]


class TrainingData:
    """Rows for one training: `train` to learn from, `validation` beside them, and `test`, the same for every seed.

    With `--all-rows` those who choose nothing by validation rows have them in `own`, after those of `train`.

    The first two are those of the package where `--splits` names a folder that `evals.bench.splits` wrote, else drawn.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.labels = read_labels(options.data)
        if options.splits:
            folder = options.splits / str(options.seed)
            self.train, self.validation = (read_rows(folder / f"{part}.jsonl") for part in ("train", "validation"))
        else:
            rows = read_rows(options.data / "train.jsonl")
            drawn = draw(rows, options.rows + options.validation_rows, options.seed)
            self.train, self.validation = drawn[: options.rows], drawn[options.rows :]
        self.own = [*self.train, *self.validation] if options.all_rows else self.train
        self.test = draw(read_rows(options.data / "test.jsonl"), options.test_rows or None, TEST_SEED)
        self.class_ids = {name: number for number, name in enumerate(self.labels)}

    def ids(self, rows: Sequence[Row]) -> list[int]:
        return [self.class_ids[label] for _text, label in rows]

    def quality(
        self,
        probabilities: Sequence[Sequence[float]],
        columns: Sequence[int] | None = None,
        gold: Sequence[int] | None = None,
    ) -> dict[str, float | None]:
        """`quality` on the test rows.

        Args:
            columns: Class numbers of the columns; None where all classes have one, in order.
            gold: Where the rows are in another order than `test`.
        """
        gold = self.ids(self.test) if gold is None else gold
        return quality(probabilities, gold, columns or range(len(self.labels)), set(self.ids(self.train)))


def training_options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl, test.jsonl, labels.json")
    parser.add_argument("--model", type=Path, required=True, help="folder of the encoder")
    parser.add_argument("--splits", type=Path, help="folder of evals.bench.splits, instead of rows drawn here")
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--validation-rows", type=int, default=200, help="of ours alone; the others take none")
    parser.add_argument(
        "--all-rows", action="store_true", help="train on the validation rows too: ours once it has chosen"
    )
    parser.add_argument("--test-rows", type=int, default=1000, help="0 takes all")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-4)
    parser.add_argument("--head-factor", type=float, default=10.0, help="of the head's rate, of ours and of Trainer")
    parser.add_argument("--warmup-share", type=float, default=0.06, help="of the steps, of Trainer; ours has the same")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of Trainer; ours has the same")
    parser.add_argument("--body-learning-rate", type=float, default=2e-5, help="of the contrastive methods")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    return parser


class EpochClock:
    """Seconds of the epochs, told when each ends; the first one warms up and is left out of the median."""

    def __init__(self) -> None:
        self._last = self._start = time.perf_counter()
        self._seconds: list[float] = []

    def tick(self) -> None:
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now

    def figures(self) -> dict[str, float]:
        """Call it when the training has ended."""
        later = self._seconds[1:] or self._seconds
        return {
            "seconds_per_epoch": median(later),
            "seconds_total": time.perf_counter() - self._start,
            "epochs": float(len(self._seconds)),
        }


def inference_options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--texts", type=Path, required=True, help="JSON list of texts")
    parser.add_argument("--calls", type=int, default=200, help="single texts, one after the other")
    parser.add_argument("--labels-out", type=Path, required=True, help="where the predicted labels go, a JSON list")
    return parser


def measure_inference(options: argparse.Namespace, classify: Callable[[list[str]], list[str]]) -> dict[str, Any]:
    """Texts a second over all texts in one call, then the latency of single ones.

    One pass before the clock runs: threads, lazy imports and kernels made for a length are no part of a throughput.
    """
    texts: list[str] = json.loads(options.texts.read_text(encoding="utf-8"))
    classify(texts)
    started = time.perf_counter()
    labels = classify(texts)
    seconds = time.perf_counter() - started
    options.labels_out.write_text(json.dumps(labels), encoding="utf-8")
    single = texts[: options.calls]
    for text in single[:10]:
        classify([text])
    latencies = []
    for text in single:
        began = time.perf_counter()
        classify([text])
        latencies.append((time.perf_counter() - began) * 1000)
    latencies.sort()
    return {
        "texts_per_second": len(texts) / seconds,
        "p50_ms": median(latencies),
        "p99_ms": latencies[min(len(latencies) - 1, round(0.99 * len(latencies)))],
        "texts": float(len(texts)),
    }


def quality(
    probabilities: Sequence[Sequence[float]], gold: Sequence[int], columns: Sequence[int], seen: Collection[int]
) -> dict[str, float | None]:
    """What probabilities are worth, as the package reports it.

    Args:
        probabilities: A row for each of `gold`, a column for each class of `columns`.
        seen: Classes with training rows.
    Returns:
        Accuracy; F1, mean over the classes that `gold` holds; cross-entropy in nats, mean over all rows and over those
        of seen classes. A loss is None where it is infinite, as with a class that has no column.
    """
    predicted = [columns[max(range(len(row)), key=row.__getitem__)] for row in probabilities]
    right = Counter(one for one, two in zip(predicted, gold, strict=True) if one == two)
    guessed, there = Counter(predicted), Counter(gold)
    place = {number: column for column, number in enumerate(columns)}
    given = [
        float(row[place[number]]) if number in place else 0.0 for row, number in zip(probabilities, gold, strict=True)
    ]
    return {
        "accuracy": right.total() / len(gold),
        "macro_f1": sum(2 * right[one] / (guessed[one] + there[one]) for one in there) / len(there),
        "test_loss": _cross_entropy(given),
        "seen_loss": _cross_entropy([one for one, number in zip(given, gold, strict=True) if number in seen]),
    }


def _cross_entropy(probabilities: Sequence[float]) -> float | None:
    """Of the probabilities that the right classes were given; None where one of them is 0."""
    if not probabilities or min(probabilities) <= 0:
        return None
    return -sum(map(math.log, probabilities)) / len(probabilities)


def peak_gib() -> float:
    """Most memory this process has had resident.

    Of Linux that is VmHWM: ru_maxrss there begins with what the process that started this one had.
    """
    kilobytes = _from_status("VmHWM")
    if kilobytes is not None:
        return kilobytes / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def _from_status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def emit(figures: dict[str, Any]) -> None:
    """Print the line that the driver reads, with peak memory; then end at once, before any library's farewell."""
    figures.setdefault("peak_gib", peak_gib())
    sys.stdout.write("\n" + json.dumps(figures) + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
