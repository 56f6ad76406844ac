"""Fill a grid of cells, one at a time; what is done is kept, and never done again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from pgkd_agent.compare.plan import TRAIN_FILE, Cell, ComparisonFile, Settings, cells, tuning_cells
from pgkd_agent.data import Task
from pgkd_agent.errors import ConfigError, PGKDError, StorageError, StudentDivergedError
from pgkd_agent.methods import WITH_LLM, Outcome, PlainFits, Setting, prompt_hash, run_method
from pgkd_agent.pipeline import load_task
from pgkd_agent.prices import load_prices
from pgkd_agent.runs import accepted_rows, lock
from pgkd_agent.types import Example, TokenUsage, label_names

ENOUGH_ROWS = 0.9
"""Share of the rows asked for that has to be left: rows with the text of another part are dropped."""


@dataclass(frozen=True)
class Done:
    """A finished cell, as it is stored.

    Attributes:
        gold, predicted: Class ids of the test rows; -1 where an LLM named no label.
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


@dataclass(frozen=True)
class Progress:
    """`cell` is done (`failure` says why it is not); `seconds_left` is None before anything is known."""

    cell: Cell
    number: int
    of: int
    failure: str
    seconds_left: float | None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Grid:
    """What was filled, and what could not be: by cell, in words."""

    done: tuple[Done, ...]
    failures: Mapping[str, str]
    tuned: Mapping[str, Settings]


def fill(
    plan: ComparisonFile,
    data: Path | None,
    out: Path,
    on_progress: OnProgress = lambda progress: None,
    only_stored: bool = False,
) -> Grid:
    """Run what is not in `out` yet.

    A cell that fails is named and left; the others go on. Cells are files `cells/DATASET/ENTRY/SEED.json`; runs of PGKD
    and answers of LLMs are beside them, and one that was killed is gone on with.

    Args:
        only_stored: Run nothing; cells that are not there yet are among the failures.
    Raises:
        ConfigError: A stored cell was made with other settings or rows; nothing is touched.
        StorageError: The disk refuses, or another process works in `out`.
    """
    held = lock(out / ".lock", str(out))
    plain_fits = PlainFits()
    try:
        tuned: dict[str, Settings] = {}
        failures: dict[str, str] = {}
        cells(plan, data, tuned)  # all settings are good
        for dataset in plan.datasets if plan.tune else ():
            try:
                tuned[dataset] = _tune(plan, dataset, data, out, only_stored)
            except (StorageError, _OtherCellError):
                raise
            except PGKDError as error:
                failures[f"{dataset}, tuning"] = str(error)
        todo = [cell for cell in cells(plan, data, tuned) if not plan.tune or cell.dataset in tuned]
        done: dict[tuple[str, str, int], Done] = {}
        took: list[tuple[str, str, float]] = []
        for number, cell in enumerate(todo, 1):
            started, is_stored = time.perf_counter(), _file(out, cell).is_file()
            failure = ""
            try:
                done[cell.dataset, cell.entry, cell.seed] = _fill(
                    cell, out, _repeated(cell, out, done), only_stored, plain_fits
                )
            except (StorageError, _OtherCellError):
                raise
            except PGKDError as error:
                failure = failures[str(cell)] = str(error)
            if not is_stored:
                took.append((cell.dataset, cell.entry, time.perf_counter() - started))
            left = [one for one in todo[number:] if not _file(out, one).is_file()]
            on_progress(Progress(cell, number, len(todo), failure, _seconds_left(left, took)))
        return Grid(tuple(done.values()), failures, tuned)
    finally:
        held.release()


@dataclass(frozen=True)
class _Repeated:
    """What a cell takes from another one, as `Setting` has it."""

    accepted: Sequence[Mapping[str, int]] | None = None
    pool: Sequence[Sequence[Example]] | None = None


def _repeated(cell: Cell, out: Path, done: Mapping[tuple[str, str, int], Done]) -> _Repeated:
    if cell.of is None:
        return _Repeated()
    seed = cell.seed if cell.of_seed is None else cell.of_seed
    repeated = done.get((cell.dataset, cell.of, seed))
    if repeated is None:
        raise _NotRunError(f"{cell.of!r}, which it repeats, is not there")
    if cell.of_seed is None:
        return _Repeated(accepted=repeated.accepted)
    folder = cell_file(out, cell.dataset, cell.of, seed).with_suffix("") / "run"
    return _Repeated(pool=accepted_rows(folder, len(repeated.accepted)))


class _NotRunError(PGKDError):
    """The cell is left for now."""


class _OtherCellError(ConfigError):
    """A stored cell was made with other settings."""


def _tune(plan: ComparisonFile, dataset: str, data: Path | None, out: Path, only_stored: bool) -> Settings:
    """The values with the lowest validation loss; of equal ones the first."""
    losses = [
        (_tuning_loss(cell, out, only_stored), number, chosen)
        for number, (chosen, cell) in enumerate(tuning_cells(plan, dataset, data))
    ]
    return min(losses)[2]


def _tuning_loss(cell: Cell, out: Path, only_stored: bool) -> float:
    try:
        loss = _fill(cell, out, _Repeated(), only_stored, PlainFits()).validation_loss
    except StudentDivergedError:
        return math.inf
    assert loss is not None  # the plain student has one
    return loss


def _fill(cell: Cell, out: Path, repeated: _Repeated, only_stored: bool, plain_fits: PlainFits) -> Done:
    task = _task(cell)
    identity = _identity(cell, task, repeated)
    file = _file(out, cell)
    stored = _stored(file, identity)
    if stored is not None:
        return stored
    if only_stored:
        raise _NotRunError("not run yet")
    folder = file.with_suffix("")
    begun = folder / "identity.json"
    if _begun_with(begun) not in (None, identity):
        raise _OtherCellError(
            f"{folder} was begun with other settings or rows; name another --out, or remove it to begin again"
        )
    _write(begun, identity)
    try:
        setting = Setting(
            task, cell.config, folder, accepted=repeated.accepted, pool=repeated.pool, plain_fits=plain_fits
        )
        outcome = run_method(cell.method, setting, cell.options)
    except StorageError as error:  # of this run alone; a full disk shows when the cell is written
        raise _NotRunError(str(error)) from error
    done = _done(cell, task, outcome)
    _write(file, {"identity": identity, "cell": asdict(done)})
    return done


def _begun_with(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError) as error:
        raise StorageError(f"{file} is damaged; remove its folder, and its cell is run again") from error


def _task(cell: Cell) -> Task:
    folder, wanted = cell.source, cell.config.data.rows
    if folder is None:
        task = load_task(config=cell.config)
    else:
        labels = folder / "labels.json"
        task = load_task(
            folder / TRAIN_FILE,
            test=folder / "test.jsonl",
            labels=labels if labels.is_file() else None,
            config=cell.config,
        )
    found = len(task.train) + len(task.validation)
    if wanted is not None and found < ENOUGH_ROWS * wanted:
        raise _NotRunError(f"not enough rows: {found:,} of {wanted:,}")
    return task


def _done(cell: Cell, task: Task, outcome: Outcome) -> Done:
    index: dict[str | None, int] = {name: number for number, name in enumerate(label_names(task.taxonomy))}
    return Done(
        dataset=cell.dataset,
        entry=cell.entry,
        seed=cell.seed,
        method=cell.method,
        gold=tuple(index[row.label] for row in task.test),
        predicted=tuple(index.get(name, -1) for name in outcome.predicted),
        num_classes=len(task.taxonomy),
        validation_loss=outcome.validation_loss,
        accepted=outcome.accepted,
        rows=outcome.rows,
        gradient_steps=outcome.gradient_steps,
        requests=outcome.requests,
        input_tokens=outcome.usage.input_tokens,
        output_tokens=outcome.usage.output_tokens,
        cost=load_prices(cell.config.teacher.prices).cost(cell.config.teacher.spec, outcome.usage)
        if outcome.usage != TokenUsage() or outcome.requests
        else 0.0,
        seconds=outcome.seconds,
    )


def _identity(cell: Cell, task: Task, repeated: _Repeated) -> dict[str, Any]:
    """What has to be the same for a stored cell to count."""
    rows = [[[row.text, row.label] for row in part] for part in (task.train, task.validation, task.test)]
    labels = [[label.name, label.description] for label in task.taxonomy]
    content = json.dumps([rows, labels, task.description], ensure_ascii=False)
    identity = {
        "method": cell.method,
        "options": dict(cell.options),
        "config": cell.config.model_dump(mode="json", exclude=_left_out(cell.method)),
        "rows_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "accepted": repeated.accepted,
        **(
            {}
            if repeated.pool is None
            else {"pool": [[[row.text, row.label] for row in step] for step in repeated.pool]}
        ),
        "prompt_sha256": prompt_hash(cell.method, cell.config),
    }
    return dict(json.loads(json.dumps(identity)))


def _left_out(method: str) -> dict[str, Any]:
    """Settings that do not matter to a method; where the rows lie does to none."""
    unused = () if method == "pgkd" else ("pgkd", "evidence")
    unasked = () if method in WITH_LLM else ("teacher", "zero_shot", "budget")
    unguarded = () if method in (*WITH_LLM, "frozen") else ("guardrails",)
    return {**dict.fromkeys((*unused, *unasked, *unguarded), True), "data": {"data_dir"}}


def _stored(file: Path, identity: dict[str, Any]) -> Done | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        made_with, cell = content["identity"], content["cell"]
        tuples = {key: tuple(value) for key, value in cell.items() if isinstance(value, list)}
        done = Done(**{**cell, **tuples})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{file} is damaged ({error}); remove it, and its cell is run again") from error
    if made_with != identity:
        other = sorted(key for key in identity if made_with.get(key) != identity[key])
        raise _OtherCellError(
            f"{file} was made with another {', '.join(other)}; name another --out, or remove it and its folder to run "
            "it again"
        )
    return done


def _write(file: Path, content: dict[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(fresh, file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise StorageError(f"{file} cannot be written: {error.strerror or error}") from error


def _file(out: Path, cell: Cell) -> Path:
    return cell_file(out, cell.dataset, cell.entry, cell.seed)


def cell_file(out: Path, dataset: str, entry: str, seed: int) -> Path:
    """Where a cell is stored; the folder of the same name without the suffix is its method's."""
    return out / "cells" / dataset / re.sub(r"[^\w.=,+-]+", "-", entry) / f"{seed}.json"


def _seconds_left(left: Sequence[Cell], took: Sequence[tuple[str, str, float]]) -> float | None:
    """From cells of the same method, on the same dataset where there is one, else from all."""
    if not took:
        return None if left else 0.0
    total = 0.0
    for cell in left:
        alike = [seconds for _dataset, entry, seconds in took if entry == cell.entry]
        same = [seconds for dataset, entry, seconds in took if (dataset, entry) == (cell.dataset, cell.entry)]
        total += mean(same or alike or [seconds for *_, seconds in took])
    return total
