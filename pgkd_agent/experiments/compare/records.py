"""Finished cells as they are stored: what makes a cell what it is, and what came of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pgkd_agent.data import Task
from pgkd_agent.errors import StorageError
from pgkd_agent.experiments.compare.cells import Cell
from pgkd_agent.experiments.methods import Outcome, Setting, Work
from pgkd_agent.files import as_line, write_whole
from pgkd_agent.metrics.intervals import NO_LABEL, NOT_ASKED
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.types import TokenUsage, label_names


@dataclass(frozen=True, kw_only=True)
class Done(Work):
    """A finished cell, as it is stored.

    Attributes:
        gold, predicted: Class ids of the test rows; `NO_LABEL` where an LLM named none, `NOT_ASKED` where it was not
            asked about a row.
        num_classes: Of the taxonomy.
    """

    dataset: str
    entry: str
    seed: int
    method: str
    gold: tuple[int, ...]
    predicted: tuple[int, ...]
    num_classes: int
    input_tokens: int
    output_tokens: int
    estimated_calls: int = 0
    batch_input_tokens: int = 0
    batch_output_tokens: int = 0


def named(done: Done, cell: Cell) -> Done:
    """A stored cell under the names of this plan, and at its prices."""
    usage = TokenUsage(**{part.name: getattr(done, part.name) for part in fields(TokenUsage)})
    cost = done.cost if cell.config.teacher.ensemble else _cost(cell, done.requests, usage)
    return replace(done, dataset=cell.dataset, entry=cell.entry, cost=cost)


def _cost(cell: Cell, requests: int, usage: TokenUsage) -> float | None:
    """Of one teacher; 0 of a method that asks none."""
    teacher = cell.config.teacher
    return load_prices(teacher.prices).cost(teacher.spec, usage) if requests else 0.0


def done_of(cell: Cell, task: Task, outcome: Outcome) -> Done:
    index: dict[str | None, int] = {name: number for number, name in enumerate(label_names(task.taxonomy))}
    predicted = [NOT_ASKED] * len(task.test)
    for number, name in zip(outcome.asked or range(len(task.test)), outcome.predicted, strict=True):
        predicted[number] = index.get(name, NO_LABEL)
    work = {part.name: getattr(outcome, part.name) for part in fields(Work)}
    if outcome.cost is None:
        work["cost"] = _cost(cell, outcome.requests, outcome.usage)
    return Done(
        dataset=cell.dataset,
        entry=cell.entry,
        seed=cell.seed,
        method=cell.method.name,
        gold=tuple(index[row.label] for row in task.test),
        predicted=tuple(predicted),
        num_classes=len(task.taxonomy),
        **asdict(outcome.usage),
        **work,
    )


def identity_of(cell: Cell, setting: Setting) -> dict[str, Any]:
    """What has to be the same for a stored cell to count."""
    task, pool = setting.task, setting.pool
    rows = [[[row.text, row.label] for row in part] for part in (task.train, task.validation, task.test)]
    labels = [[label.name, label.description] for label in task.taxonomy]
    content = json.dumps([rows, labels, task.description, *task.unlabelled], ensure_ascii=False)
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
        stored = json.loads(file.read_text(encoding="utf-8"))
        cell = stored["cell"]
        if stored.get("sha256", _digest(cell)) != _digest(cell):
            raise ValueError("it is not what was written")
        tuples = {key: tuple(value) for key, value in cell.items() if isinstance(value, list)}
        return Done(**{**cell, **tuples})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{file} is damaged ({error}); remove it, and its cell is run again") from error


def store(file: Path, identity: dict[str, Any], done: Done) -> None:
    """
    Raises:
        StorageError: The disk refuses.
    """
    cell = json.loads(json.dumps(asdict(done)))
    write_whole(file, as_line({"identity": identity, "cell": cell, "sha256": _digest(cell)}))


def _digest(cell: Any) -> str:
    return hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()
