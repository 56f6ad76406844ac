"""Latency and cost of a batch, student against LLM: the paper's Table 5 on one's own rows and machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import DataError
from pgkd_agent.experiments.zero_shot import ZeroShotResult, evaluate_zero_shot
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.text import counted
from pgkd_agent.types import Example

if TYPE_CHECKING:
    from pgkd_agent.student.classifier import StudentClassifier

Basis = Literal["measured", "computed", "not known"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from.

    Attributes:
        value: None where it is not known.
        how: Of what it was computed, how it was measured, or what is missing.
    """

    value: float | None
    basis: Basis
    how: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A batch with one contender.

    Attributes:
        kind: `student` or `llm`.
        accuracy: Share of the rows labelled right.
        usd: Of the batch, in the currency of the price table: machine time, or the tokens of a remote LLM.
    """

    name: str
    kind: Literal["student", "llm"]
    seconds: Figure
    usd: Figure
    accuracy: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the LLM takes what the student takes; `computed`, or None and `not known`."""

    student: str
    seconds: Figure
    usd: Figure


@dataclass(frozen=True, slots=True)
class LatencyCost:
    """
    Attributes:
        rows: Of the batch.
        currency: Of all costs.
        answers: The LLM's answers; None without an LLM.
    """

    rows: int
    currency: str
    results: tuple[Measured, ...]
    ratios: tuple[Ratio, ...]
    answers: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MachinePrices:
    """In the currency of the price table, an hour; None where not known.

    Attributes:
        cpu: Of the machine this runs on.
        gpu: Of a machine with this GPU.
    """

    cpu: float | None = None
    gpu: float | None = None


@dataclass(frozen=True, slots=True)
class StudentOptions:
    """As for `StudentClassifier.load`; `repeats` passes over the batch are timed, after one that is not."""

    engine: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    batch_size: int = 64
    repeats: int = 5


def measure_latency_cost(
    model: Path,
    rows: Sequence[Example],
    config: PGKDConfig,
    answers: Path | None,
    machine: MachinePrices,
    student: StudentOptions,
    on_answer: Callable[[int, int], None] = lambda answered, unresolved: None,
    on_estimate: Callable[[Estimate], None] = lambda estimate: None,
) -> LatencyCost:
    """Time the student on the CPU, and on the GPU where there is one, then the LLM over the same rows.

    The student comes first, so that nothing is paid for when its model cannot be loaded.

    Args:
        rows: One batch; labels of the model.
        config: Teacher, prices, caps and zero-shot settings, as for `evaluate_zero_shot`.
        answers: File for the LLM's answers; None measures the student alone.
    Raises:
        ConfigError: The model cannot be loaded, or see `evaluate_zero_shot`.
        DataError: A label is not one of the model's.
        TeacherError: See `evaluate_zero_shot`.
    """
    from pgkd_agent.student.classifier import StudentClassifier

    prices = load_prices(config.teacher.prices)
    results = []
    for device in _devices(model, student.engine):
        classifier = StudentClassifier.load(
            model,
            device,
            student.batch_size,
            engine=student.engine,
            precision=student.precision,
            threads=student.threads,
        )
        _check_labels(rows, classifier.labels, model)
        taxonomy = classifier.taxonomy
        per_hour = machine.cpu if device == "cpu" else machine.gpu
        results.append(_measure_student(classifier, rows, device, per_hour, student.repeats))
    ratios: tuple[Ratio, ...] = ()
    if answers is not None:
        answered = evaluate_zero_shot(rows, taxonomy, config, answers, on_answer, on_estimate)
        llm = _measured_llm(answered, len(rows), config, machine.cpu)
        ratios = tuple(_ratio(llm, own) for own in results)
        results.append(llm)
    return LatencyCost(len(rows), prices.currency, tuple(results), ratios, str(answers) if answers else None)


def _unknown(why: str) -> Figure:
    return Figure(None, "not known", why)


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


def _measure_student(
    classifier: StudentClassifier, rows: Sequence[Example], device: str, per_hour: float | None, repeats: int
) -> Measured:
    texts = [row.text for row in rows]
    right = sum(item.label == row.label for item, row in zip(classifier.classify(texts), rows, strict=True))
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        classifier.classify(texts)
        times.append(time.perf_counter() - started)
    passes = f"{repeats} passes ({min(times):.4f} to {max(times):.4f}) after one to warm up"
    seconds = Figure(statistics.median(times), "measured", f"from texts to labels, median of {passes}")
    cost = _machine_cost(seconds, per_hour, device)
    return Measured(f"student, {device}", "student", seconds, cost, right / len(rows))


def _measured_llm(result: ZeroShotResult, rows: int, config: PGKDConfig, per_hour: float | None) -> Measured:
    seconds = _llm_seconds(result, rows, config.teacher.concurrency)
    usd = _machine_cost(seconds, per_hour, "cpu") if config.teacher.is_local else _token_cost(result, config)
    return Measured(config.teacher.spec, "llm", seconds, usd, result.report.accuracy)


def _llm_seconds(result: ZeroShotResult, rows: int, concurrency: int) -> Figure:
    """Of a batch that was continued only the rows of this run were timed."""
    way = f"{concurrency} requests at a time" if concurrency > 1 else "one request after the other"
    if result.asked == rows:
        return Figure(result.seconds, "measured", f"wall time of {counted(rows, 'call')}, {way}, retries included")
    if result.asked == 0:
        return _unknown("all answers were there already; name another `out` to time them")
    how = f"from the {counted(result.asked, 'row')} that were asked in this run, {way}"
    return Figure(result.seconds * rows / result.asked, "computed", how)


def _token_cost(result: ZeroShotResult, config: PGKDConfig) -> Figure:
    spec, usage, prices = config.teacher.spec, result.usage, load_prices(config.teacher.prices)
    if not usage.input_tokens:
        return _unknown("the server reported no tokens")
    cost = prices.cost(spec, usage)
    if cost is None:
        return _unknown(f"no price for {spec} in the price table; `teacher.prices=FILE` names one")
    tokens = f"{counted(usage.input_tokens, 'token')} in and {usage.output_tokens} out"
    return Figure(cost, "computed", f"{tokens}, as reported, at the prices of {prices.as_of}")


def _machine_cost(seconds: Figure, per_hour: float | None, device: str) -> Figure:
    if per_hour is None:
        option = "`machine_usd_per_hour`" if device == "cpu" else "`gpu_usd_per_hour`"
        return _unknown(f"no price of the machine; give {option}")
    if seconds.value is None:
        return _unknown("the seconds are not known")
    how = f"seconds at {per_hour:g} an hour of a machine in full use"
    return Figure(seconds.value * per_hour / 3600, "computed", how)


def _ratio(llm: Measured, student: Measured) -> Ratio:
    seconds = _quotient(llm.seconds, student.seconds, "seconds")
    return Ratio(student.name, seconds, _quotient(llm.usd, student.usd, "costs"))


def _quotient(over: Figure, under: Figure, what: str) -> Figure:
    if over.value is None or not under.value:
        return _unknown(f"not both {what} are known")
    return Figure(over.value / under.value, "computed", f"LLM's {what} by the student's")
