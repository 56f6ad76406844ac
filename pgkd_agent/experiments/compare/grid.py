"""Fill a grid of cells, one at a time; what is done is kept, and never done again."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from pgkd_agent.config import DataSettings, PGKDConfig
from pgkd_agent.data import Task, read_pool
from pgkd_agent.errors import PGKDError, StorageError, StudentDivergedError
from pgkd_agent.experiments.compare.cells import TRAIN_FILE, UNLABELLED_FILE, Cell, cells, tuning_cells
from pgkd_agent.experiments.compare.plan import ComparisonFile, Settings
from pgkd_agent.experiments.compare.records import Done, done_of, identity_of, named, read_cell, store
from pgkd_agent.experiments.methods import PlainFits, Setting, run_method
from pgkd_agent.files import lock, make_folder, remove_leftovers, storing
from pgkd_agent.pipeline import load_task
from pgkd_agent.runs.samples import accepted_rows

logger = logging.getLogger(__name__)

ENOUGH_ROWS = 0.9
"""Share of the rows asked for that has to be left: rows with the text of another part are dropped."""


Place = tuple[str, str, int]
"""Dataset, entry and seed."""


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
    """What was filled.

    Attributes:
        failures: What could not be: by cell, in words.
        tuned: What was chosen for each dataset.
        folders: Of the methods of the cells that are done, with their runs and answers.
    """

    done: tuple[Done, ...]
    failures: Mapping[str, str]
    tuned: Mapping[str, Settings]
    folders: Mapping[Place, Path] = field(default_factory=dict)


def fill(
    plan: ComparisonFile,
    data: Path | None,
    out: Path,
    on_progress: OnProgress = lambda progress: None,
    only_stored: bool = False,
) -> Grid:
    """Run what is not in `out` yet.

    A cell that fails is named and left; the others go on. Cells are files `cells/DATASET/METHOD/SEED-HASH.json`, the
    hash being that of all that makes a cell what it is: so files of tables share cells, under whatever names, and
    other settings make other ones. A folder of the same name has runs of PGKD and answers of LLMs; a cell that was
    killed is gone on with.

    Args:
        only_stored: Run nothing; cells that are not there yet are among the failures.
    Raises:
        ConfigError: A setting, method or dataset of the plan is not known; nothing is run.
        StorageError: The disk refuses, or another process works in `out`.
    """
    for cell in cells(plan, data, {}):  # all settings and prompts are good
        cell.method.prompt_hash(cell.config)
    held = lock(out / ".lock", str(out))
    try:
        with storing(out):
            for folder in (out, *out.glob("cells/*/*")):
                remove_leftovers(folder)
        work = _Work(out, only_stored)
        tuned = work.tune(plan, data)
        todo = [cell for cell in cells(plan, data, tuned) if not plan.tune or cell.dataset in tuned]
        work.look_up(todo)
        took: list[tuple[Cell, float]] = []
        for number, cell in enumerate(todo, 1):
            started, is_new = time.perf_counter(), _place(cell) not in work.done
            failure = work.run(cell)
            if is_new:
                took.append((cell, time.perf_counter() - started))
            left = [one for one in todo[number:] if _place(one) not in work.done]
            on_progress(Progress(cell, number, len(todo), failure, _seconds_left(left, took)))
        done = [work.done[_place(cell)] for cell in todo if _place(cell) in work.done]
        return Grid(tuple(done), work.failures, tuned, {place: work.folders[place] for place in work.done})
    finally:
        held.release()


class _NotRunError(PGKDError):
    """The cell is left for now."""


class _Work:
    """Cells of one plan, by dataset, entry and seed.

    Attributes:
        done: What is there so far.
        folders: Where the methods of cells work.
        failures: By cell, in words.
    """

    def __init__(self, out: Path, only_stored: bool) -> None:
        self.done: dict[Place, Done] = {}
        self.failures: dict[str, str] = {}
        self._out = out
        self._only_stored = only_stored
        self.folders: dict[Place, Path] = {}
        self._tasks: dict[tuple[Path | None, int, DataSettings, bool], Task] = {}
        self._plain_fits = PlainFits()

    def tune(self, plan: ComparisonFile, data: Path | None) -> dict[str, Settings]:
        """For each dataset the values with the lowest validation loss; of equal ones the first."""
        tuned = {}
        for dataset in plan.datasets if plan.tune else ():
            choices = list(tuning_cells(plan, dataset, data))
            with self._named(f"{dataset}, tuning"):
                losses = [self._tuning_loss(cell) for _chosen, cell in choices]
                tuned[dataset] = choices[losses.index(min(losses))][0]
        return tuned

    def look_up(self, todo: Sequence[Cell]) -> None:
        """Find what is there, each cell after those that it repeats."""
        for cell in todo:
            try:
                stored = read_cell(_file(self._prepare(cell)[0]))
            except StorageError:
                raise
            except PGKDError:  # said when its turn comes
                continue
            if stored:
                self.done[_place(cell)] = named(stored, cell)

    def run(self, cell: Cell) -> str:
        """Make sure of a cell; returns why it cannot be, else nothing.

        Raises:
            StorageError: The disk refuses.
        """
        with self._named(str(cell)):
            self.done[_place(cell)] = self.done.get(_place(cell)) or self._fill(cell)
        return self.failures.get(str(cell), "")

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Keep what goes wrong within among the failures, but for a disk that refuses."""
        try:
            yield
        except StorageError:
            raise
        except PGKDError as error:
            self.failures[what] = str(error)

    def _tuning_loss(self, cell: Cell) -> float:
        try:
            loss = self._fill(cell).validation_loss
        except StudentDivergedError:
            return math.inf
        assert loss is not None  # the plain student has one
        return loss

    def _fill(self, cell: Cell) -> Done:
        setting, identity = self._prepare(cell)
        if stored := read_cell(_file(setting)):
            return named(stored, cell)
        if self._only_stored:
            raise _NotRunError("not run yet")
        if cache := setting.config.teacher.cache:
            with storing(cache):
                make_folder(cache.parent)
        try:
            outcome = run_method(cell.method.name, setting, cell.options)
        except StorageError as error:  # of this run alone; a full disk shows when the cell is written
            raise _NotRunError(str(error)) from error
        except PGKDError:
            raise
        except Exception as error:  # out of memory, a mistake of ours: hours of other cells must not be lost to it
            logger.exception("%s", cell)
            raise _NotRunError(f"{type(error).__name__}: {error}") from error
        done = done_of(cell, setting.task, outcome)
        store(_file(setting), identity, done)
        return done

    def _prepare(self, cell: Cell) -> tuple[Setting, dict[str, Any]]:
        """With its rows and what it takes from another one; and what makes the cell what it is."""
        task = self._task(cell)
        cell = self._within_tokens(cell)
        setting = self._with_repeated(cell, Setting(task, cell.config, Path(), plain_fits=self._plain_fits))
        identity = identity_of(cell, setting)
        content = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        name = f"{cell.seed}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        folder = self._out / "cells" / _rows_name(cell) / cell.method.name / name
        self.folders[_place(cell)] = folder
        return replace(setting, folder=folder, config=self._sharing_replies(cell)), identity

    def _within_tokens(self, cell: Cell) -> Cell:
        if cell.tokens_of is None:
            return cell
        other = self.done.get((cell.dataset, *cell.tokens_of))
        if other is None:
            raise _NotRunError(f"{cell.tokens_of[0]!r}, whose tokens it may take, is not there")
        most = other.input_tokens + other.output_tokens
        return replace(cell, config=cell.config.changed({"budget.max_tokens": most}))

    def _sharing_replies(self, cell: Cell) -> PGKDConfig:
        """Methods that ask the same of a teacher, with one seed on one dataset, get the same reply, and pay once.

        It counts in full for each of them. Where the LLM is the classifier it is asked each time, for its latency.
        """
        if cell.method.llm_predicts:
            return cell.config.changed({"teacher.cache": None})
        if not cell.method.asks_llm or cell.config.teacher.cache is not None:
            return cell.config
        cache = self._out / "replies" / f"{_rows_name(cell)}-{cell.seed}.sqlite"
        return cell.config.changed({"teacher.cache": cache})

    def _with_repeated(self, cell: Cell, setting: Setting) -> Setting:
        if cell.of is None:
            return setting
        place = (cell.dataset, cell.of, cell.seed if cell.of_seed is None else cell.of_seed)
        if place not in self.done:
            raise _NotRunError(f"{cell.of!r}, which it repeats, is not there")
        accepted = self.done[place].accepted
        if cell.of_seed is None:
            return replace(setting, accepted=accepted)
        pool = accepted_rows(self.folders[place] / "run", len(accepted))
        if [len(step) for step in pool] != [sum(step.values()) for step in accepted]:
            raise _NotRunError(f"the samples of {cell.of!r} are not in {self.folders[place]} any more")
        return replace(setting, pool=pool)

    def _task(self, cell: Cell) -> Task:
        key = (cell.source, cell.seed, cell.config.data, cell.method.labels_texts)
        if key not in self._tasks:
            task = read_task(cell.source, cell.config)
            self._tasks[key] = _with_pool(task, cell) if cell.method.labels_texts else task
        task, wanted = self._tasks[key], cell.config.data.rows
        found = len(task.train) + len(task.validation)
        if wanted is not None and found < ENOUGH_ROWS * wanted:
            raise _NotRunError(f"not enough rows: {found:,} of {wanted:,}")
        return task


def _place(cell: Cell) -> Place:
    return cell.dataset, cell.entry, cell.seed


def _file(setting: Setting) -> Path:
    """Where its cell is stored."""
    return setting.folder.with_name(f"{setting.folder.name}.json")


def _rows_name(cell: Cell) -> str:
    return cell.source.name if cell.source else str(cell.config.data.dataset)


def read_task(folder: Path | None, config: PGKDConfig) -> Task:
    """The rows of `source_and_config`."""
    if folder is None:
        return load_task(config=config)
    train, test, labels = (folder / name for name in (TRAIN_FILE, "test.jsonl", "labels.json"))
    return load_task(train, test=test, labels=labels if labels.is_file() else None, config=config)


def _with_pool(task: Task, cell: Cell) -> Task:
    """With texts to label; rows that were drawn for training or validation are none."""
    if cell.source and (file := cell.source / UNLABELLED_FILE).is_file():
        return task.with_unlabelled(read_pool(file, cell.config.data.text_column))
    drawn = {row.text for row in (*task.train, *task.validation)}
    whole = read_task(cell.source, cell.config.changed({"data.rows": None}))
    rest = [row.text for row in (*whole.train, *whole.validation) if row.text not in drawn]
    if not rest:
        raise _NotRunError(f"no texts to label: there is no {UNLABELLED_FILE}, and `data.rows` leaves no row out")
    return task.with_unlabelled(rest)


def _seconds_left(left: Sequence[Cell], took: Sequence[tuple[Cell, float]]) -> float | None:
    """From cells of the same method, on the same dataset where there is one, else from all."""
    if not took:
        return None if left else 0.0
    total = 0.0
    for cell in left:
        alike = [(one, seconds) for one, seconds in took if one.method == cell.method] or took
        same = [(one, seconds) for one, seconds in alike if one.dataset == cell.dataset] or alike
        total += mean(seconds for _one, seconds in same)
    return total
