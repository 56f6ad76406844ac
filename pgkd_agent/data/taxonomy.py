"""The ordered labels with optional descriptions: from a file, else from the rows."""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from pgkd_agent.data.delimited import unique_names
from pgkd_agent.data.formats import unique_object
from pgkd_agent.data.lines import existing, read_text_file
from pgkd_agent.data.reading import named_rows
from pgkd_agent.data.values import are_ids, as_label, as_text
from pgkd_agent.errors import DataError
from pgkd_agent.text import label_key, normalize, well_formed
from pgkd_agent.types import Example, Label, label_names

logger = logging.getLogger(__name__)

Taxonomy = tuple[Label, ...]

Labels: TypeAlias = str | Path | Mapping[str, str] | Iterable[str | Label | Mapping[str, str] | tuple[str, str]]
"""The classes in their order: a `.json` or `.yaml` file with a list of names, a list of `{"name", "description"}`, or a
mapping of name to description; a `.txt` file with a name a line; or the same shapes in memory."""

LOOKS_MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none", "nil"})
"""What other programs write where there was no label, in normal form."""

_WHOLE = re.compile(r"^(-?\d+)\.0+$")
"""A whole number as floats are written."""

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
        where = str(source)
        content = _load(existing(Path(source)))
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
    names = sorted({row.label for row in rows})
    if are_ids(names):
        logger.info(
            "the labels are numbers, and a teacher is told only those; labels with descriptions can say what they mean"
        )
    return check_taxonomy([Label(name) for name in names], "the labelled rows")


def check_taxonomy(labels: Sequence[Label], where: str) -> Taxonomy:
    """Refuse fewer than two classes, and names that are the same number or share a `label_key`."""
    if len(labels) < 2:
        raise DataError(f"{where}: found {len(labels)} class, a classifier needs at least 2")
    by_form: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        by_form[_WHOLE.sub(r"\1", label_key(label.name))].append(label.name)
    clashes = [names for names in by_form.values() if len(names) > 1]
    if clashes:
        raise DataError(
            f"{where}: labels that differ in case, quote marks, unseen signs or white space only, or not at all: "
            f"{', '.join(map(_spelled, clashes[0]))}; make them one"
        )
    return tuple(labels)


def _spelled(name: str) -> str:
    points = " ".join(f"U+{ord(char):04X}" for char in name if not char.isascii())
    return f"{name!r} ({points})" if points else repr(name)


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
            return (
                json.loads(text, object_pairs_hook=unique_object) if suffix == ".json" else yaml.load(text, _AsWritten)
            )
    except Exception as error:  # PyYAML passes on what Python raises
        raise DataError(f"{path} cannot be read: {error}") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


class _AsWritten(yaml.SafeLoader):
    """Leaves `yes`, `012`, `12:30` and dates the texts that they are; only what is null or empty stays none."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        unique_names((key.value for key, _ in node.value), "a mapping", "keys")
        return super().construct_mapping(node, deep)


_AsWritten.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0].endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _label(item: Any, where: str) -> Label:
    if isinstance(item, Label):
        return item
    name, description = item, None
    if isinstance(item, tuple) and len(item) == 2:
        name, description = item
    elif isinstance(item, Mapping) and "name" in item and not set(item) - {"name", "description"}:
        name, description = item["name"], item.get("description")
    elif isinstance(item, (list, tuple, set, Mapping)):
        raise DataError(f"{where}: a label is a name or {{name, description}}, found {item!r}")
    named = as_label(name, f"{where}: a label")
    if not named:
        raise DataError(
            f"{where}: a label is a name or {{name, description}}, found {item!r}; quote it if it is a name"
        )
    return Label(well_formed(named), well_formed(as_text(description, f"{where}: the description of {named!r}")))
