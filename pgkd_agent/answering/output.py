"""A table with a label for each row of a file of any size, gone on with where it was stopped."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.files import as_line, lock_beside, remove_leftovers, replacing, storing, sync, write_whole
from pgkd_agent.text import well_formed

SEPARATORS = {".csv": ",", ".tsv": "\t"}
FORMATS = (*SEPARATORS, ".jsonl", ".ndjson", ".parquet")
TEXT = 2
"""Rank of a Parquet column that is not only whole numbers, or numbers."""
BLOCK = 8192
"""Rows of a Parquet file that are in memory at a time."""


class LabelledTable:
    """Writes rows as they come into `NAME.part`, and gives it its name when all are there.

    `NAME.part.json` says after each block how much of it is whole; what a stopped process wrote beyond that is cut off.
    Parquet is made of it at the end, since a Parquet file cannot be gone on with.

    Args:
        target: A file that is not there yet, of one of `FORMATS`.
        work: What the rows are made of; a part that was made of something else is not gone on with.
        new: Names of the columns that are added; a row that lacks one of them has nothing there.
    Raises:
        ConfigError: The target is there, has another suffix, or its part is of other work.
        StorageError: The disk refuses, or another process writes it.
    """

    def __init__(self, target: Path, work: str, new: Sequence[str]) -> None:
        self._target, self._kind, self._new = target, target.suffix.lower(), new
        if self._kind not in FORMATS:
            raise ConfigError(f"{target}: unknown format {target.suffix!r}; expected one of {', '.join(FORMATS)}")
        with storing(target):
            is_there = target.exists()
        self._part = target.with_name(f"{target.name}.part")
        self._progress = target.with_name(f"{target.name}.part.json")
        self._work = work
        if is_there:
            self._clear()
            raise ConfigError(f"{target} exists already; name another one, or remove it")
        self._held = lock_beside(target)
        try:
            with storing(self._part):
                for name in (target.name, self._progress.name):
                    remove_leftovers(target.parent, name)
                said = self._read_progress()
                write_whole(self._progress, json.dumps(said))
                self._file = self._part.open("ab")
                self._file.truncate(said["bytes"])
        except BaseException:
            self._held.release()
            raise
        self.num_rows: int = said["rows"]
        """Of the input that are written already."""
        self._columns: list[str] | None = said["columns"]

    def _clear(self) -> None:
        """Remove what is left of a table that was stopped when it had got its name already."""
        with suppress(OSError, ValueError, AttributeError):
            if json.loads(self._progress.read_bytes()).get("is_whole"):
                self._part.unlink(missing_ok=True)
                self._progress.unlink(missing_ok=True)

    def _read_progress(self) -> Mapping[str, Any]:
        try:
            said = json.loads(self._progress.read_text(encoding="utf-8"))
            said = {name: said[name] for name in ("work", "rows", "bytes", "columns")}
        except FileNotFoundError:
            if self._part.exists():
                raise ConfigError(
                    f"{self._part} is there, and is no beginning of this; remove it, or name another file"
                ) from None
            return {"work": self._work, "rows": 0, "bytes": 0, "columns": None}
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._progress} is damaged ({error!r}); remove it and {self._part.name}") from error
        if said["work"] != self._work:
            raise ConfigError(
                f"{self._part} is of another input, model or options: remove it and {self._progress.name}, or name "
                "another file"
            )
        if said["bytes"] > (self._part.stat().st_size if self._part.exists() else 0):
            raise StorageError(f"{self._part} is shorter than it was; remove it and {self._progress.name}")
        return said

    def write(self, rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Add a block: of each row what the input has, and what was found.

        Raises:
            ConfigError: See `check`; or rows of a CSV or TSV file have different columns.
            StorageError: The disk refuses.
        """
        for record, _found in rows:
            self.check(record)
        whole = [
            {**{str(name): value for name, value in record.items()}, **{name: found.get(name) for name in self._new}}
            for record, found in rows
        ]
        with storing(self._part):
            self._file.write(well_formed("".join(self._encoded(whole))).encode("utf-8"))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.num_rows += len(rows)
        self._say(is_whole=False)

    def _say(self, is_whole: bool) -> None:
        done = {"work": self._work, "rows": self.num_rows, "bytes": self._file.tell(), "columns": self._columns}
        write_whole(self._progress, json.dumps({**done, "is_whole": is_whole}))

    def check(self, record: Mapping[str, Any]) -> None:
        """
        Raises:
            ConfigError: The input has a column of the name of a new one.
        """
        if both := [name for name in self._new if name in record]:
            raise ConfigError(f"the input has a column {both[0]!r}, which is written here; give that one another name")

    def _encoded(self, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
        if not (separator := SEPARATORS.get(self._kind)):
            yield from (as_line(row, default=str) for row in rows)
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=separator, lineterminator="\n")
        for row in rows:
            if self._columns is None:
                self._columns = list(row)
                writer.writerow(self._columns)
            if other := row.keys() - {*self._columns}:
                raise ConfigError(
                    f"rows have different columns (here {min(other)!r} is new), which a {self._kind} file cannot hold; "
                    "take a .jsonl file"
                )
            writer.writerow([_as_cell(row.get(column)) for column in self._columns])
        yield text.getvalue()

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            StorageError: The disk refuses.
        """
        self._say(is_whole=True)
        self._file.close()
        with storing(self._target):
            if self._kind == ".parquet":
                with replacing(self._target) as whole:
                    _to_parquet(self._part, whole)
            else:
                os.replace(self._part, self._target)
                sync(self._target.parent)
            self._clear()

    def close(self) -> None:
        """Let go of the file; what is written stays for the next time."""
        with suppress(OSError):
            self._file.close()
        self._held.release()


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _to_parquet(part: Path, target: Path) -> None:
    """A column of numbers holds numbers; any other text, what is none of it as JSON."""
    import pyarrow
    import pyarrow.parquet

    kinds = (pyarrow.int64(), pyarrow.float64(), pyarrow.string())
    ranks: dict[str, int] = {}
    for row in _rows(part):
        for name, value in row.items():
            ranks[name] = max(ranks.get(name, 0), _rank(value))
    schema = pyarrow.schema([(name, kinds[rank]) for name, rank in ranks.items()])
    as_kind: dict[int, Callable[[Any], float | str]] = {1: float, TEXT: _as_cell}
    changed = {name: as_kind[rank] for name, rank in ranks.items() if rank in as_kind}
    rows = _rows(part)
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        while block := list(islice(rows, BLOCK)):
            for row in block:
                row |= {name: change(row[name]) for name, change in changed.items() if row.get(name) is not None}
            writer.write_table(pyarrow.Table.from_pylist(block, schema))


def _rank(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return TEXT
    return 1 if isinstance(value, float) else 0 if abs(value) < 2**63 else TEXT


def _rows(part: Path) -> Iterator[dict[str, Any]]:
    with part.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
