"""Rows as people hold them in Python, or keep them with `datasets`: as mappings, whatever they came in."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from pgkd_agent.data.delimited import unique_names
from pgkd_agent.data.formats import SUFFIXES, Record, arrow_records, read_records, records_of_columns, with_names
from pgkd_agent.errors import DataError
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)

VALIDATION_SPLITS = ("validation", "valid", "val", "dev")


class Table(Protocol):
    """A pandas DataFrame or a Hugging Face Dataset."""

    def to_dict(self, *args: Any, **kwargs: Any) -> Any: ...


Rows: TypeAlias = (
    str
    | Path
    | Table
    | Mapping[str, Any]
    | tuple[Iterable[Any], Iterable[Any]]
    | Iterable[Example | Record | Sequence[Any]]
)
"""Labelled rows: a file (CSV, TSV, JSON, JSONL, Parquet), a folder that `save_to_disk` wrote, a pandas DataFrame, a
Hugging Face Dataset, an Arrow table, a mapping of column names to columns, a tuple of texts and labels, or `Example`s,
mappings or `(text, label)` pairs. Where training rows are wanted, also a DatasetDict, for its splits."""


@dataclass(frozen=True, slots=True)
class Held:
    """Rows as mappings.

    Attributes:
        where: What to call them in a message.
        has_names: Whether their columns were named; else they are `text` and `label`.
    """

    records: list[Record]
    where: str
    has_names: bool = True


def records_of(source: Any) -> Held:
    """
    Raises:
        DataError: No such file, one that cannot be read, several splits, or what is no rows.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        return Held(records_of(_saved(path)).records if path.is_dir() else read_records(path), str(path))
    if splits_of(source):
        raise DataError(f"the splits {', '.join(source)} instead of rows; hand over one of them, as in splits['train']")
    if isinstance(source, Mapping):
        return Held(records_of_columns(source, "the rows"), "the rows")
    if hasattr(source, "column_names") and hasattr(source, "features"):
        return Held(dataset_records(source), "the dataset")
    is_pandas = hasattr(source, "iloc")
    if is_pandas and hasattr(source, "columns"):
        unique_names(source.columns, "the data frame")
        return Held(source.to_dict("records"), "the data frame")
    if hasattr(source, "__arrow_c_stream__") and not is_pandas:
        import pyarrow

        table = pyarrow.table(source)
        return Held(list(arrow_records(table.schema, table.to_batches(), "the table")), "the table")
    if isinstance(source, tuple) and len(source) == 2 and all(map(_is_column, source)):
        columns = {"text": list(source[0]), "label": list(source[1])}
        return Held(records_of_columns(columns, "the rows"), "the rows", has_names=False)
    if not isinstance(source, Iterable):
        raise DataError(f"expected rows (a file, a data frame, a dataset, a list), found {type(source).__name__}")
    rows = list(source)
    records = [_record(row, number) for number, row in enumerate(rows, 1)]
    return Held(records, "the rows", has_names=any(record is row for record, row in zip(records, rows, strict=True)))


def splits_of(source: Any) -> Mapping[str, Any] | None:
    """The splits of a DatasetDict, be it in memory or in a folder that its `save_to_disk` wrote; None of all else."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        return splits_of(_saved(path)) if (path / "dataset_dict.json").is_file() else None
    is_splits = isinstance(source, Mapping) and (hasattr(source, "column_names") or "train" in source)
    return source if is_splits else None


def with_splits(train: Any, validation: Any, test: Any) -> tuple[Any, Any, Any]:
    """The three as they are, or what a DatasetDict in place of `train` has for those that are not given, aloud.

    Raises:
        DataError: It has no split `train`.
    """
    splits = splits_of(train)
    if splits is None:
        return train, validation, test
    if "train" not in splits:
        raise DataError(f"the training rows: splits {', '.join(map(repr, splits))}, and none of them is 'train'")
    held = next((name for name in VALIDATION_SPLITS if name in splits), None)
    taken = ["train"]
    if validation is None and held:
        validation = splits[held]
        taken.append(held)
    if test is None and "test" in splits:
        test = splits["test"]
        taken.append("test")
    left = [name for name in splits if name not in taken]
    logger.info("taking the splits %s%s", ", ".join(taken), f"; leaving {', '.join(left)}" if left else "")
    return splits["train"], validation, test


def dataset_records(dataset: Any) -> list[Record]:
    """Rows of a `datasets.Dataset`, class ids turned into the names its features know."""
    features = getattr(dataset, "features", None) or {}
    names = {column: feature.names for column, feature in features.items() if getattr(feature, "names", None)}
    return [with_names(record, names) for record in dataset]


def _saved(folder: Path) -> Any:
    """
    Raises:
        DataError: It is no folder that `save_to_disk` wrote, or a damaged one.
    """
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(
            f"{folder} is a folder, and none that save_to_disk of datasets wrote; expected a file "
            f"({', '.join(SUFFIXES)})"
        )
    import datasets

    try:
        return datasets.load_from_disk(folder)
    except Exception as error:  # the library has no base class for what can be wrong with a folder
        raise DataError(f"{folder} cannot be read: {type(error).__name__}: {error}") from error


def _is_column(value: Any) -> bool:
    """A list, an array or a Series; a tuple is a row, and so is what has names."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, tuple, Mapping))


def _record(row: Any, number: int) -> Record:
    if isinstance(row, Example):
        return {"text": row.text, "label": row.label}
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "_asdict"):
        named: Record = row._asdict()
        return named
    if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
        raise DataError(
            f"row {number} is of type {type(row).__name__}; expected a mapping, a pair of text and label, or an Example"
        )
    if len(row) != 2:
        raise DataError(
            f"row {number} has {len(row)} values; expected a text and a label (columns are handed over as a tuple: "
            "(texts, labels))"
        )
    return {"text": row[0], "label": row[1]}
