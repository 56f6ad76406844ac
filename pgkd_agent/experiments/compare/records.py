"""Finished cells as they are stored: what makes a cell what it is, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgkd_agent.data import Task
from pgkd_agent.errors import StorageError
from pgkd_agent.experiments.compare.cells import Cell
from pgkd_agent.experiments.methods import Outcome, Setting
from pgkd_agent.files import as_line, write_whole
from pgkd_agent.metrics.intervals import NO_LABEL, NOT_ASKED
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.types import TokenUsage, label_names


@dataclass(frozen=True)
class Done:
    """A finished cell, as it is stored.

    Attributes:
        gold, predicted: Class ids of the test rows; `NO_LABEL` where an LLM named none, `NOT_ASKED` where it was not
            asked about a row.
        predict_seconds: That the predictions took; None where not known.
        num_classes: Of the taxonomy.
        cost: Of the teacher in the currency of the price table, None where its price is not known.
        accepted: Rows per label that each KD step added.
    """

    dataset: str
    entry: str
    seed: int
    method: str
    gold: tuple[int, ...]
    predicted: tuple[int, ...]
    num_classes: int
    validation_loss: float | None
    accepted: tuple[Mapping[str, int], ...]
    rows: int
    gradient_steps: int
    requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float
    predict_seconds: float | None = None


def named(done: Done, cell: Cell) -> Done:
    """A stored cell under the names of this plan, and at its prices."""
    cost = (
        done.cost if cell.config.teacher.ensemble else _cost(cell, done.requests, done.input_tokens, done.output_tokens)
    )
    return replace(done, dataset=cell.dataset, entry=cell.entry, cost=cost)


def _cost(cell: Cell, requests: int, input_tokens: int, output_tokens: int) -> float | None:
    """Of one teacher; 0 of a method that asks none."""
    if not requests:
        return 0.0
    return load_prices(cell.config.teacher.prices).cost(
        cell.config.teacher.spec, TokenUsage(input_tokens, output_tokens)
    )


def done_of(cell: Cell, task: Task, outcome: Outcome) -> Done:
    index: dict[str | None, int] = {name: number for number, name in enumerate(label_names(task.taxonomy))}
    predicted = [NOT_ASKED] * len(task.test)
    for number, name in zip(outcome.asked or range(len(task.test)), outcome.predicted, strict=True):
        predicted[number] = index.get(name, NO_LABEL)
    return Done(
        dataset=cell.dataset,
        entry=cell.entry,
        seed=cell.seed,
        method=cell.method.name,
        gold=tuple(index[row.label] for row in task.test),
        predicted=tuple(predicted),
        num_classes=len(task.taxonomy),
        validation_loss=outcome.validation_loss,
        accepted=outcome.accepted,
        rows=outcome.rows,
        gradient_steps=outcome.gradient_steps,
        requests=outcome.requests,
        input_tokens=outcome.usage.input_tokens,
        output_tokens=outcome.usage.output_tokens,
        cost=_cost(cell, outcome.requests, outcome.usage.input_tokens, outcome.usage.output_tokens)
        if outcome.cost is None
        else outcome.cost,
        seconds=outcome.seconds,
        predict_seconds=outcome.predict_seconds,
    )


def identity_of(cell: Cell, setting: Setting) -> dict[str, Any]:
    """What has to be the same for a stored cell to count."""
    task, pool = setting.task, setting.pool
    rows = [[[row.text, row.label] for row in part] for part in (task.train, task.validation, task.test)]
    labels = [[label.name, label.description] for label in task.taxonomy]
    content = json.dumps([rows, labels, task.description], ensure_ascii=False)
    identity = {
        "method": cell.method.name,
        "options": dict(cell.options),
        "config": cell.method.settings_read(cell.config),
        "rows_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "accepted": setting.accepted,
        "pool": None if pool is None else [[[row.text, row.label] for row in step] for step in pool],
        "prompt_sha256": cell.method.prompt_hash(cell.config),
    }
    return dict(json.loads(json.dumps(identity)))


def read_cell(file: Path) -> Done | None:
    if not file.is_file():
        return None
    try:
        cell = json.loads(file.read_text(encoding="utf-8"))["cell"]
        tuples = {key: tuple(value) for key, value in cell.items() if isinstance(value, list)}
        return Done(**{**cell, **tuples})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{file} is damaged ({error}); remove it, and its cell is run again") from error


def store(file: Path, identity: dict[str, Any], done: Done) -> None:
    """
    Raises:
        StorageError: The disk refuses.
    """
    write_whole(file, as_line({"identity": identity, "cell": asdict(done)}))
