"""Read the paper's datasets from files as their authors publish them."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgkd_agent.data.delimited import csv_lines
from pgkd_agent.data.formats import Record, read_json_lines, read_records
from pgkd_agent.data.lines import read_text_file
from pgkd_agent.data.reading import complete_rows, read_examples
from pgkd_agent.data.splitting import stratified_split
from pgkd_agent.data.taxonomy import Taxonomy, read_taxonomy, taxonomy_of
from pgkd_agent.errors import DataError
from pgkd_agent.text import normalize
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Of test rows drawn where a set has none of its own: the same for every run, whatever its seed."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A dataset with a test split; the taxonomy covers both parts."""

    train: tuple[Example, ...]
    test: tuple[Example, ...]
    taxonomy: Taxonomy

    @classmethod
    def of(cls, train: Sequence[Example], test: Sequence[Example]) -> LabelledSet:
        return cls(tuple(train), tuple(test), taxonomy_of([*train, *test]))


def prepared(folder: Path) -> LabelledSet | None:
    """`train.jsonl`, `test.jsonl` and `labels.json`, of any set; None where one is missing."""
    files = [find(folder, name) for name in ("train.jsonl", "test.jsonl", "labels.json")]
    if None in files:
        return None
    train, test, labels = (file for file in files if file)
    return LabelledSet(tuple(read_examples(train)), tuple(read_examples(test)), read_taxonomy(labels))


def topic_csv(folder: Path, names: Sequence[str]) -> LabelledSet | None:
    """`train.csv` and `test.csv` of Zhang et al. 2015: class number from 1, then the parts of the text."""
    train, test = find(folder, "train.csv"), find(folder, "test.csv")
    if not train or not test:
        return None
    return LabelledSet.of(_topic_rows(train, names), _topic_rows(test, names))


def huffpost_json(folder: Path) -> LabelledSet | None:
    """`News_Category_Dataset_v2.json` or `_v3`: a JSON object a line; the headline is the text."""
    path = find(folder, "News_Category_Dataset*.json")
    if not path:
        return None
    pairs = ((row.get("headline"), row.get("category")) for row in read_json_lines(path))
    rows = complete_rows(pairs, str(path), True)
    return split_off_test(rows, 0.2)  # the paper: 160,000 to 40,000


def amzn_csv(folder: Path) -> LabelledSet | None:
    """`train_40k.csv` and `val_10k.csv` of Kashnitsky 2018: title and review, labelled with the level-3 class."""
    train, test = find(folder, "train_40k.csv"), find(folder, "val*_10k.csv")
    if not train or not test:
        return None
    return LabelledSet.of(_amzn_rows(train), _amzn_rows(test))


def imdb_files(folder: Path) -> LabelledSet | None:
    """`aclImdb/{train,test}/{pos,neg}/*.txt` of Maas et al. 2011, or the one file `IMDB Dataset.csv`."""
    one_file = find(folder, "IMDB Dataset.csv")
    if one_file:
        return split_off_test(read_examples(one_file, "review", "sentiment"), 0.5)  # as many as in the original
    root = next((place for place in (folder, folder / "aclImdb") if (place / "train" / "pos").is_dir()), None)
    if not root:
        return None
    return LabelledSet.of(*([*_review_files(root / part)] for part in ("train", "test")))


def inshorts_csv(folder: Path) -> LabelledSet | None:
    """`inshort_news_data-*.csv`: headline, article and category; the files repeat many articles."""
    paths = find_all(folder, "inshort_news_data-*.csv")
    if not paths:
        return None
    rows: list[Example] = []
    for path in paths:
        records = read_records(path)
        pairs = ((_joined(row, "news_headline", "news_article"), row.get("news_category")) for row in records)
        rows += complete_rows(pairs, str(path), True)
    return split_off_test(rows, 0.2)


def split_off_test(rows: Sequence[Example], share: float) -> LabelledSet:
    """Stratified test rows for a set that has none: repeated texts kept once, those with two labels left out."""
    train, test = stratified_split(unique_texts(rows), share, random.Random(SPLIT_SEED))
    return LabelledSet.of(train, test)


def unique_texts(rows: Iterable[Example]) -> list[Example]:
    """Each text once; a text with two labels is left out, since one of them is wrong."""
    first: dict[str, Example] = {}
    labels: dict[str, set[str]] = {}
    count = 0
    for row in rows:
        count += 1
        form = normalize(row.text)
        first.setdefault(form, row)
        labels.setdefault(form, set()).add(row.label)
    unique = [row for form, row in first.items() if len(labels[form]) == 1]
    if len(unique) < count:
        logger.warning(
            "left out %d of %d rows: repeated texts, and %d texts with two labels",
            count - len(unique),
            count,
            len(first) - len(unique),
        )
    return unique


def find(folder: Path, pattern: str) -> Path | None:
    """The first of `find_all`."""
    return next(iter(find_all(folder, pattern)), None)


def find_all(folder: Path, pattern: str) -> list[Path]:
    """Matches in the folder, else in its subfolders, sorted."""
    return sorted(folder.glob(pattern)) or sorted(folder.glob(f"*/{pattern}"))


def _topic_rows(path: Path, names: Sequence[str]) -> list[Example]:
    lines = csv_lines(path)
    if lines and not lines[0][0].strip().isdigit():
        lines = lines[1:]  # some copies have a header
    rows = []
    for number, (label, *parts) in enumerate(lines, 1):
        if not label.strip().isdigit() or not 1 <= int(label) <= len(names):
            raise DataError(f"{path}, row {number}: class {label!r}, expected a number from 1 to {len(names)}")
        rows.append((" ".join(parts).replace("\\n", " "), names[int(label) - 1]))  # written as backslash and n
    return complete_rows(rows, str(path), True)


def _amzn_rows(path: Path) -> list[Example]:
    """Rows of the category `unknown` are left out: it is the lack of one."""
    pairs = [(_joined(row, "Title", "Text"), row.get("Cat3")) for row in read_records(path)]
    known = [pair for pair in pairs if pair[1] != "unknown"]
    if len(known) < len(pairs):
        logger.warning("%s: left out %d of %d rows of level 3 'unknown'", path, len(pairs) - len(known), len(pairs))
    return complete_rows(known, str(path), True)


def _review_files(part: Path) -> Iterator[Example]:
    for folder, label in (("pos", "positive"), ("neg", "negative")):
        for path in sorted((part / folder).glob("*.txt")):
            yield Example(read_text_file(path).strip(), label)


def _joined(row: Record, *columns: str) -> str:
    return ". ".join(part for column in columns if (part := str(row.get(column) or "").strip()))
