"""The ordered labels with optional descriptions: from a file, else from the rows."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pgkd_agent.data.formats import read_text_file
from pgkd_agent.data.reading import named_rows
from pgkd_agent.errors import DataError
from pgkd_agent.text import normalize
from pgkd_agent.types import Example, Label, label_names

Taxonomy = tuple[Label, ...]

Labels: TypeAlias = str | Path | Mapping[str, str] | Iterable[str | Label | Mapping[str, str] | tuple[str, str]]
"""The classes in their order: a `.json` or `.yaml` file with a list of names, a list of `{"name", "description"}`, or a
mapping of name to description; a `.txt` file with a name a line; or the same shapes in memory."""

LOOKS_MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil"})
"""What other programs write where there was no label, in normal form."""

LABEL_SUFFIXES = (".json", ".yaml", ".yml", ".txt")


def read_taxonomy(source: Labels) -> Taxonomy:
    """Read labels in their order.

    Args:
        source: See `Labels`.
    Raises:
        DataError: No such file, another shape, or names that `check_taxonomy` refuses.
    """
    content: Any = source
    where = "the labels"
    if isinstance(source, (str, Path)):
        path = Path(source)
        where = str(path)
        if not path.is_file():
            raise DataError(f"no such file: {path}")
        content = _load(path)
    items = content.items() if isinstance(content, Mapping) else content
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise DataError(f"{where}: expected a list or a mapping of labels, found {type(content).__name__}")
    return check_taxonomy([_label(item, where) for item in items], where)


def taxonomy_of(rows: Sequence[Example]) -> Taxonomy:
    """All labels of the rows, sorted by name.

    Raises:
        DataError: See `check_taxonomy`; or a label looks like a missing value, which only a taxonomy that is given
            may contain.
    """
    missing = [number for number, row in enumerate(rows, 1) if normalize(row.label) in LOOKS_MISSING]
    if missing:
        raise DataError(
            f"the labelled rows: label {rows[missing[0] - 1].label!r} looks like a missing value, in "
            f"{named_rows(missing)}; "
            "correct the rows or, if it is a class, name all classes with `labels`"
        )
    return check_taxonomy([Label(name) for name in sorted({row.label for row in rows})], "the labelled rows")


def check_taxonomy(labels: Sequence[Label], where: str) -> Taxonomy:
    """Refuse fewer than two classes, and names that differ in case or white space only."""
    if len(labels) < 2:
        raise DataError(f"{where}: found {len(labels)} class, a classifier needs at least 2")
    by_form: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_form[normalize(label.name)].append(label.name)
    clashes = [names for names in by_form.values() if len(names) > 1]
    if clashes:
        raise DataError(
            f"{where}: labels that differ in case or white space only, or not at all: "
            f"{', '.join(map(repr, clashes[0]))}; make them one"
        )
    return tuple(labels)


def check_labels(rows: Iterable[Example], taxonomy: Taxonomy, where: str) -> None:
    """Raise a DataError naming the first row and the number of labels outside the taxonomy."""
    names = label_names(taxonomy)
    known = set(names)
    unknown = [(number, row.label) for number, row in enumerate(rows, 1) if row.label not in known]
    if unknown:
        number, label = unknown[0]
        closest = difflib.get_close_matches(label, names, n=1, cutoff=0.0)
        raise DataError(
            f"{where}: label {label!r} (row {number}, and {len(unknown) - 1} more rows) is not in the "
            f"taxonomy ({len(names)} labels; closest: {closest[0]!r}); correct it or add it with `labels`"
        )


def _load(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        raise DataError(f"{path}: unknown format {suffix!r}; expected {', '.join(LABEL_SUFFIXES)}")
    text = read_text_file(path)
    try:
        if suffix in (".json", ".yaml", ".yml"):
            return json.loads(text) if suffix == ".json" else yaml.safe_load(text)
    except Exception as error:  # PyYAML passes on what Python raises, as for the date 2024-13-45
        raise DataError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _label(item: Any, where: str) -> Label:
    if isinstance(item, Label):
        return item
    if isinstance(item, tuple):
        return Label(str(item[0]).strip(), str(item[1] or "").strip())
    if isinstance(item, Mapping):
        unknown = set(item) - {"name", "description"}
        if unknown or "name" not in item:
            raise DataError(f"{where}: a label is a name or {{name, description}}, found {dict(item)!r}")
        return Label(str(item["name"]).strip(), str(item.get("description") or "").strip())
    if isinstance(item, (str, int)) and str(item).strip():
        return Label(str(item).strip())
    raise DataError(f"{where}: a label is a name or {{name, description}}, found {item!r}")
