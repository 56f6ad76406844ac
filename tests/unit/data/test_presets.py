"""The paper's datasets, from small files in the layout in which their authors publish them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pgkd_agent.config import build_config
from pgkd_agent.data import PRESETS, load_preset
from pgkd_agent.data import presets as presets_module
from pgkd_agent.data.layouts import LabelledSet, unique_texts
from pgkd_agent.errors import ConfigError, DataError
from pgkd_agent.pipeline import load_task
from pgkd_agent.types import Example, label_names


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def ag_news(folder: Path) -> None:
    write(folder / "ag_news_csv" / "train.csv", '"3","Oil up","Prices ""rose"" again\\today"\n"4","Chip","A new one"\n')
    write(folder / "ag_news_csv" / "test.csv", '"1","Talks","Two sides, one table"\n"2","Cup","Final on Sunday"\n')


def yahoo_answers(folder: Path) -> None:
    write(
        folder / "train.csv", '"5","Why is it slow?","","Close\\nsome tabs"\n"10","Who may vote?","In May","Adults"\n'
    )
    write(folder / "test.csv", '"1","Why do we bow?","","A custom"\n')


def huffpost(folder: Path) -> None:
    rows = [{"category": "ARTS", "headline": f"A play number {n}", "authors": "", "date": "x"} for n in range(10)]
    rows += [{"category": "TECH", "headline": f"A chip number {n}", "short_description": "no"} for n in range(10)]
    rows += [{"category": "TECH", "headline": ""}]
    write(folder / "News_Category_Dataset_v2.json", "".join(json.dumps(row) + "\n" for row in rows))


AMZN = "productId,Title,userId,Helpfulness,Score,Time,Text,Cat1,Cat2,Cat3\n"


def amzn_reviews(folder: Path) -> None:
    rows = (
        'B1,Brush,u,0/0,5.0,1,"Soft, good",beauty,tools,brushes\nB2,Ball,u,0/0,1.0,1,Lost it,toys games,sports,balls\n'
    )
    write(folder / "train_40k.csv", f"{AMZN}{rows}B3,Thing,u,0/0,1.0,1,What is it,toys games,sports,unknown\n")
    write(folder / "val_10k.csv", f"{AMZN}B4,Kite,u,0/0,5.0,1,Flies well,toys games,sports,kites\n")


def imdb(folder: Path) -> None:
    for part in ("train", "test"):
        for name, text in (("pos/0_9.txt", "A joy<br />really"), ("neg/1_2.txt", "A bore")):
            write(folder / "aclImdb" / part / name, f"{text} in {part}")
        write(folder / "aclImdb" / part / "urls_pos.txt", "http://example.org")
    write(folder / "aclImdb" / "train" / "unsup" / "0_0.txt", "nobody knows")


def inshorts(folder: Path) -> None:
    head = ",news_headline,news_article,news_category\n"
    for number, label in ((1, "sports"), (7, "world")):
        rows = "".join(f"{n},Head {n} {label},Body {n},{label}\n" for n in range(10))
        write(folder / f"inshort_news_data-{number}.csv", f"{head}{rows}{rows}99,Both,Same,{label}\n")


FILES = {
    "ag_news": ag_news,
    "yahoo_answers": yahoo_answers,
    "huffpost": huffpost,
    "amzn_reviews": amzn_reviews,
    "imdb": imdb,
    "inshorts": inshorts,
}


@pytest.fixture
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LabelledSet:
    FILES[request.param](tmp_path)
    return load_preset(request.param, tmp_path)


def test_all_six_are_there() -> None:
    assert set(FILES) == set(PRESETS)


@pytest.mark.parametrize("loaded", ["ag_news"], indirect=True)
def test_ag_news(loaded: LabelledSet) -> None:
    assert loaded.train[0] == Example('Oil up Prices "rose" again\\today', "Business")
    assert [row.label for row in (*loaded.train, *loaded.test)] == ["Business", "Sci/Tech", "World", "Sports"]


@pytest.mark.parametrize("loaded", ["yahoo_answers"], indirect=True)
def test_yahoo_answers(loaded: LabelledSet) -> None:
    assert loaded.train[0] == Example("Why is it slow?  Close some tabs", "Computers & Internet")
    assert loaded.train[1].label == "Politics & Government" and loaded.test[0].label == "Society & Culture"


@pytest.mark.parametrize("loaded", ["huffpost"], indirect=True)
def test_huffpost_is_split_by_class_and_always_alike(loaded: LabelledSet, tmp_path: Path) -> None:
    assert Counter(row.label for row in loaded.test) == {"ARTS": 2, "TECH": 2} and len(loaded.train) == 16
    assert not {row.text for row in loaded.train} & {row.text for row in loaded.test}
    assert load_preset("huffpost", tmp_path) == loaded


@pytest.mark.parametrize("loaded", ["amzn_reviews"], indirect=True)
def test_amzn_reviews_take_the_third_level_without_unknown(loaded: LabelledSet) -> None:
    assert loaded.train == (Example("Brush. Soft, good", "brushes"), Example("Ball. Lost it", "balls"))
    assert label_names(loaded.taxonomy) == ("balls", "brushes", "kites")  # also what only the test rows have


@pytest.mark.parametrize("loaded", ["imdb"], indirect=True)
def test_imdb_from_one_file_a_review(loaded: LabelledSet) -> None:
    assert loaded.train == (Example("A joy<br />really in train", "positive"), Example("A bore in train", "negative"))
    assert len(loaded.test) == 2


def test_imdb_from_one_file_for_all(tmp_path: Path) -> None:
    rows = "".join(f"Review {n},{'positive' if n % 2 else 'negative'}\n" for n in range(20))
    write(tmp_path / "IMDB Dataset.csv", f"review,sentiment\n{rows}")
    loaded = load_preset("imdb", tmp_path)
    assert len(loaded.train) == len(loaded.test) == 10


@pytest.mark.parametrize("loaded", ["inshorts"], indirect=True)
def test_inshorts_keeps_a_text_once_and_none_with_two_labels(loaded: LabelledSet) -> None:
    texts = [row.text for row in (*loaded.train, *loaded.test)]
    assert len(texts) == len(set(texts)) == 20 and "Both. Same" not in texts
    assert "Head 3 world. Body 3" in texts


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Example("One", "a"), Example("one ", "a"), Example("two", "a"), Example("TWO", "b"), Example("three", "b")]
    assert unique_texts(rows) == [Example("One", "a"), Example("three", "b")]
    assert "left out 3 of 5 rows: repeated texts, and 1 texts with two labels" in caplog.text


def test_any_of_them_as_rows_and_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", "".join(json.dumps({"text": f"{name} {c}", "label": c}) + "\n" for c in "ba"))
    write(tmp_path / "labels.json", '["b", "a", "c"]')
    assert label_names(load_preset("yahoo_answers", tmp_path).taxonomy) == ("b", "a", "c")


def test_a_preset_is_a_task_with_the_description_and_test_rows_of_the_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    huffpost(tmp_path)
    flags = {"data.dataset": "huffpost", "data.data_dir": str(tmp_path), "data.rows": 10, "data.test_rows": 3}
    with caplog.at_level(logging.INFO):
        task = load_task(config=build_config(flags=flags))
        other = load_task(config=build_config(flags={**flags, "seed": 5}))
    assert (len(task.train), len(task.validation), len(task.test)) == (8, 2, 3)
    assert task.test == other.test and task.train != other.train
    assert task.description == PRESETS["huffpost"].task
    with pytest.raises(ConfigError, match="either labelled rows"):
        load_task([("a", "b")], config=build_config(flags=flags))
    with pytest.raises(ConfigError, match="either labelled rows"):
        load_task()


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("imdb62", {}, "no dataset 'imdb62'; there are: ag_news, yahoo_answers"),
        ("ag_news", {"train.csv": "1,a,b\n"}, "does not hold ag_news: expected train.csv, test.csv"),
        (
            "ag_news",
            {"train.csv": "1,a,b\n5,c,d\n", "test.csv": "1,a,b\n"},
            "row 2: class '5', expected a number from 1",
        ),
        ("huffpost", {"News_Category_Dataset_v2.json": "{}\n{\n"}, "line 2 is not JSON"),
        ("inshorts", {}, "does not hold inshorts: expected inshort_news_data"),
    ],
)
def test_other_files_are_refused_with_what_is_expected(
    tmp_path: Path, name: str, files: dict[str, str], message: str
) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(DataError, match=message):
        load_preset(name, tmp_path)


def test_without_a_folder_or_a_hub_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_preset("ag_news", tmp_path / "none")
    with pytest.raises(DataError, match=r"no copy of inshorts is known.*`data\.data_dir`"):
        load_preset("inshorts")
    with pytest.raises(
        DataError, match=r"cannot be had from the model hub \(fancyzhx/ag_news.*`data.data_dir` that holds train"
    ):
        load_preset("ag_news")


def test_a_hub_copy_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` takes a folder for a hub id; the class names are in its features."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    for split in ("train", "test"):
        rows = {"text": [f"fine {split}", f"dull {split}", None], "label": [1, 0, 0]}
        path = tmp_path / "copy" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    hub = PRESETS["imdb"].hub
    assert hub is not None
    copy = replace(PRESETS["imdb"], hub=replace(hub, id=str(tmp_path / "copy")))
    monkeypatch.setitem(presets_module.PRESETS, "imdb", copy)
    loaded = load_preset("imdb")
    assert loaded.train == (Example("fine train", "positive"), Example("dull train", "negative"))
    assert loaded.test[0] == Example("fine test", "positive")
    monkeypatch.setitem(presets_module.PRESETS, "imdb", replace(copy, hub=replace(copy.hub, label_column="stars")))
    with pytest.raises(DataError, match="has no column stars; it has: text, label"):
        load_preset("imdb")
