"""Latency and cost of a batch, student against LLM: the paper's Table 5 on one's own rows and machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import DataError
from pgkd_agent.experiments.zero_shot import ZeroShotResult, evaluate_zero_shot
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.text import counted
from pgkd_agent.types import Example

if TYPE_CHECKING:
    from pgkd_agent.student.classifier import StudentClassifier


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, None where it is not known, and how it was measured, of what it was computed, or what is missing."""

    value: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A batch with one contender.

    Attributes:
        accuracy: Share of the rows labelled right.
        cost: Of the batch, in the currency of the price table: machine time, or the tokens of a remote LLM.
    """

    name: str
    accuracy: float
    seconds: Figure
    cost: Figure


def measure_latency_cost(
    model: Path,
    rows: Sequence[Example],
    config: PGKDConfig,
    answers: Path | None = None,
    cpu_price: float | None = None,
    gpu_price: float | None = None,
    repeats: int = 5,
    on_answer: Callable[[int, int], None] = lambda answered, unresolved: None,
    on_estimate: Callable[[Estimate], None] = lambda estimate: None,
    **loading: Any,
) -> list[Measured]:
    """Time the student on the CPU, and on the GPU where there is one, then the LLM over the same rows.

    The student comes first, so that nothing is paid for when its model cannot be loaded.

    Args:
        rows: One batch; labels of the model.
        config: Teacher, prices, caps and zero-shot settings, as for `evaluate_zero_shot`.
        answers: File for the LLM's answers; None measures the student alone.
        cpu_price: Of an hour of this machine, in the currency of the price table; None where not known.
        gpu_price: Of an hour of a machine with this GPU.
        repeats: Passes of the student that are timed, after one that is not.
        loading: `engine`, `precision`, `threads` and `batch_size`, as for `StudentClassifier.load`.
    Returns:
        The student once for each device, then the LLM.
    Raises:
        ConfigError: The model cannot be loaded, or see `evaluate_zero_shot`.
        DataError: A label is not one of the model's.
        TeacherError: See `evaluate_zero_shot`.
    """
    from pgkd_agent.student.classifier import StudentClassifier

    results = []
    for device in _devices(model, loading.get("engine", "auto")):
        classifier = StudentClassifier.load(model, device, **loading)
        _check_labels(rows, classifier.labels, model)
        seconds, accuracy = _time_student(classifier, rows, repeats)
        cost = _machine_cost(seconds, cpu_price if device == "cpu" else gpu_price, device)
        results.append(Measured(f"student, {device}", accuracy, seconds, cost))
    if answers is not None:
        direct = config.changed({"teacher.batch": False})  # how long a job waits says nothing of the model
        answered = evaluate_zero_shot(rows, classifier.taxonomy, direct, answers, on_answer, on_estimate)
        seconds = _llm_seconds(answered, len(rows), config.teacher.concurrency)
        is_local = config.teacher.is_local
        cost = _machine_cost(seconds, cpu_price, "cpu") if is_local else _token_cost(answered, config)
        results.append(Measured(config.teacher.spec, answered.report.accuracy, seconds, cost))
    return results


def _check_labels(rows: Sequence[Example], labels: Sequence[str], model: Path) -> None:
    unknown = [row.label for row in rows if row.label not in labels]
    if unknown:
        raise DataError(
            f"{len(unknown)} of the {len(rows)} rows have a label that {model} does not know, such as "
            f"{unknown[0]!r} (it has {len(labels)}, such as {labels[0]!r}); give rows with the labels that it was "
            "trained for"
        )


def _devices(model: Path, engine: str) -> list[str]:
    from pgkd_agent.student.engines.choosing import choose_engine
    from pgkd_agent.student.loading import choose_device

    accelerator = choose_device("auto").type
    is_torch = choose_engine(model, engine) == "torch"
    return ["cpu", accelerator] if is_torch and accelerator != "cpu" else ["cpu"]


def _time_student(classifier: StudentClassifier, rows: Sequence[Example], repeats: int) -> tuple[Figure, float]:
    """The seconds, and the accuracy."""
    texts = [row.text for row in rows]
    right = sum(item.label == row.label for item, row in zip(classifier.classify(texts), rows, strict=True))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        classifier.classify(texts)
        times.append(time.perf_counter() - started)
    passes = f"{repeats} passes ({min(times):.4f} to {max(times):.4f}) after one to warm up"
    how = f"measured from texts to labels, median of {passes}"
    return Figure(statistics.median(times), how), right / len(rows)


def _llm_seconds(result: ZeroShotResult, rows: int, concurrency: int) -> Figure:
    """Of a batch that was continued only the rows of this run were timed."""
    way = f"{concurrency} requests at a time" if concurrency > 1 else "one request after the other"
    if result.asked == 0:
        return Figure(None, "not known: all answers were there already; name another `out` to time them")
    if result.asked == rows:
        return Figure(result.seconds, f"measured: wall time of {counted(rows, 'call')}, {way}, retries included")
    how = f"computed from the {counted(result.asked, 'row')} that were asked in this run, {way}"
    return Figure(result.seconds * rows / result.asked, how)


def _token_cost(result: ZeroShotResult, config: PGKDConfig) -> Figure:
    spec, usage, prices = config.teacher.spec, result.usage, load_prices(config.teacher.prices)
    if not usage.input_tokens:
        return Figure(None, "not known: the server reported no tokens")
    cost = prices.cost(spec, usage)
    if cost is None:
        return Figure(None, f"not known: no price for {spec} in the price table; `teacher.prices=FILE` names one")
    how = "" if usage.estimated_calls else ", as reported"
    return Figure(cost, f"computed from {usage}{how}, at the prices of {prices.as_of}")


def _machine_cost(seconds: Figure, per_hour: float | None, device: str) -> Figure:
    if per_hour is None:
        option = "`machine_usd_per_hour`" if device == "cpu" else "`gpu_usd_per_hour`"
        return Figure(None, f"not known: no price of the machine; give {option}")
    if seconds.value is None:
        return Figure(None, "not known: the seconds are not")
    how = f"computed from the seconds at {per_hour:g} an hour of a machine in full use"
    return Figure(seconds.value * per_hour / 3600, how)
