"""The paper's six datasets by name: from the model hub through `datasets`, or from files in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pgkd_agent.data import layouts
from pgkd_agent.data.containers import dataset_records
from pgkd_agent.data.layouts import LabelledSet
from pgkd_agent.data.reading import complete_rows
from pgkd_agent.errors import DataError
from pgkd_agent.types import Example

AG_NEWS = ("World", "Sports", "Business", "Sci/Tech")
YAHOO = (
    "Society & Culture",
    "Science & Mathematics",
    "Health",
    "Education & Reference",
    "Computers & Internet",
    "Sports",
    "Business & Finance",
    "Entertainment & Music",
    "Family & Relationships",
    "Politics & Government",
)
"""In the order of their numbers in the original files."""


@dataclass(frozen=True, slots=True)
class HubSource:
    """Where the set lies on the hub; the text columns are joined with a blank.

    Attributes:
        test_share: Share split off as test rows where the hub's copy has only a train split, else None.
        renamed: Pairs of the hub's label and ours, where they differ.
    """

    id: str
    text_columns: tuple[str, ...]
    label_column: str
    test_share: float | None = None
    renamed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Preset:
    """One of the paper's datasets.

    Attributes:
        task: What the texts and labels are, as the teacher is told unless the settings say otherwise.
        classes: As in the paper; a copy may differ.
        files: The original layout, for messages.
        read: Reads that layout from a folder; None where its files are not there.
        hub: None where no copy is known.
    """

    name: str
    title: str
    task: str
    classes: int
    paper: str
    files: str
    licence: str
    read: Callable[[Path], LabelledSet | None]
    hub: HubSource | None = None


_TABLE = (
    Preset(
        "ag_news",
        "AG's corpus of news articles (Gulli 2005; topics by Zhang et al. 2015)",
        "News articles, title and description; the label is the topic.",
        4,
        "Tables 1, 2, 4, 6",
        "train.csv, test.csv: class number, title, description, without a header",
        "research and other non-commercial use",
        partial(layouts.topic_csv, names=AG_NEWS),
        HubSource("fancyzhx/ag_news", ("text",), "label"),
    ),
    Preset(
        "yahoo_answers",
        "Yahoo! Answers topics (Zhang et al. 2015)",
        "Questions to Yahoo! Answers with their best answer; the label is the topic.",
        10,
        "Tables 1, 2, 6",
        "train.csv, test.csv: class number, question title, question content, best answer, without a header",
        "not stated",
        partial(layouts.topic_csv, names=YAHOO),
        HubSource(
            "community-datasets/yahoo_answers_topics", ("question_title", "question_content", "best_answer"), "topic"
        ),
    ),
    Preset(
        "huffpost",
        "News Category Dataset, HuffPost headlines (Misra 2018)",
        "Headlines of HuffPost; the label is the section.",
        41,
        "Tables 1, 2, 4, 6",
        "News_Category_Dataset_v2.json (41 classes) or _v3.json (42): one JSON object a line",
        "CC0 (version 2), CC BY 4.0 (version 3)",
        layouts.huffpost_json,
        HubSource("heegyu/news-category-dataset", ("headline",), "category", 0.2),
    ),
    Preset(
        "amzn_reviews",
        "Hierarchical text classification, Amazon reviews, level 3 (Kashnitsky 2018)",
        "Amazon product reviews, title and text; the label is the category of the product.",
        335,
        "Tables 1, 2, 4, 6, Figure 3",
        "train_40k.csv, val_10k.csv with the columns Title, Text, Cat3 (353 classes without 'unknown')",
        "CC0",
        layouts.amzn_csv,
    ),
    Preset(
        "imdb",
        "Large Movie Review Dataset (Maas et al. 2011)",
        "Movie reviews; the label is their sentiment.",
        2,
        "Table 3",
        "aclImdb/train/pos/*.txt and so on, or IMDB Dataset.csv with the columns review, sentiment",
        "not stated; its authors ask to be cited",
        layouts.imdb_files,
        HubSource("stanfordnlp/imdb", ("text",), "label", renamed=(("neg", "negative"), ("pos", "positive"))),
    ),
    Preset(
        "inshorts",
        "Inshorts daily news (files inshort_news_data-N.csv)",
        "Short news, headline and article; the label is the topic.",
        7,
        "Table 3",
        "inshort_news_data-*.csv with the columns news_headline, news_article, news_category",
        "not stated",
        layouts.inshorts_csv,
    ),
)
PRESETS = {preset.name: preset for preset in _TABLE}

PREPARED = "train.jsonl, test.jsonl and labels.json"


def load_preset(name: str, folder: Path | str | None = None) -> LabelledSet:
    """Read one of the paper's datasets.

    Args:
        folder: Files in their original layout, or `train.jsonl`, `test.jsonl` and `labels.json`, here or one folder
            deeper; None asks the hub.
    Raises:
        DataError: An unknown name, files that are missing or not as expected, or a hub that does not answer.
    """
    if name not in PRESETS:
        raise DataError(f"no dataset {name!r}; there are: {', '.join(PRESETS)}; or give labelled rows, `train`")
    chosen = PRESETS[name]
    if folder is None:
        return _from_hub(chosen)
    if not Path(folder).is_dir():
        raise DataError(f"no such folder: {folder}; expected one with the files of {name}: {chosen.files}")
    found = layouts.prepared(Path(folder)) or chosen.read(Path(folder))
    if found is None:
        raise DataError(f"{folder} does not hold {name}: expected {chosen.files}; or {PREPARED}")
    return found


def _from_hub(chosen: Preset) -> LabelledSet:
    source = chosen.hub
    if source is None:
        raise DataError(
            f"no copy of {chosen.name} is known on the model hub; name a folder with `data.data_dir` that holds "
            f"{chosen.files}"
        )
    train = _hub_rows(chosen, source, "train")
    if source.test_share is not None:
        return layouts.split_off_test(train, source.test_share)
    return LabelledSet.of(train, _hub_rows(chosen, source, "test"))


def _hub_rows(chosen: Preset, source: HubSource, split: str) -> list[Example]:
    import datasets

    try:
        rows = datasets.load_dataset(source.id, split=split, trust_remote_code=False)
    except Exception as error:  # the hub client has no base class for what can go wrong on the way
        raise DataError(
            f"{chosen.name} cannot be had from the model hub ({source.id}: {type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}); without it, name a folder with `data.data_dir` that holds "
            f"{chosen.files}"
        ) from error
    missing = {*source.text_columns, source.label_column} - set(rows.column_names)
    if missing:
        raise DataError(
            f"{source.id} has no column {', '.join(sorted(missing))}; it has: {', '.join(rows.column_names)}"
        )
    ours = dict(source.renamed)
    pairs = (
        (" ".join(str(record[column] or "") for column in source.text_columns), ours.get(label, label))
        for record in dataset_records(rows)
        for label in [record[source.label_column]]
    )
    return complete_rows(pairs, source.id, True)
