from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods.eda import (
    WORDNET,
    augment,
    delete_words,
    from_table,
    insert_words,
    replace_words,
    swap_words,
    wordnet_synonyms,
)

SYNONYMS = from_table({"card": ["board", "card"], "lost": ["missing", "gone"], "quick": ["fast"]})
TEXT = "I lost my card on a quick trip and want a new card"
WORDS = TEXT.split()


def drawn(seed: int = 0) -> random.Random:
    return random.Random(seed)


def test_variants_are_as_many_as_asked_for_and_the_operations_share_them() -> None:
    variants = augment(TEXT, SYNONYMS, drawn(), alpha=0.1, num_aug=9)
    assert len(variants) == 9
    assert variants == augment(TEXT, SYNONYMS, drawn(), alpha=0.1, num_aug=9)
    lengths = Counter(len(variant.split()) - len(WORDS) for variant in augment(TEXT, SYNONYMS, drawn(), 0.1, 40))
    assert lengths[1] >= 9  # of the 11 insertions at most 4 are cut off
    assert any(difference < 0 for difference in lengths)  # deletions


def test_a_replaced_word_is_replaced_everywhere_and_stop_words_stay() -> None:
    for seed in range(20):
        changed = replace_words(WORDS, 1, SYNONYMS, drawn(seed))
        differ = {old for old, new in zip(WORDS, changed, strict=True) if old != new}
        assert len(differ) == 1
        if differ == {"card"}:
            assert changed.count("board") == 2 and "card" not in changed
    everything = replace_words(WORDS, 99, from_table({word.lower(): ["x"] for word in WORDS}), drawn())
    assert [word for word in everything if word != "x"] == ["I", "my", "on", "a", "and", "a"]


def test_a_word_is_found_without_its_punctuation() -> None:
    assert replace_words(["Lost,"], 1, from_table({"lost": ["gone"]}), drawn()) == ["gone"]


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.integers(0, 5), st.integers())
def test_insertions_add_synonyms_of_words_that_are_there(words: list[str], number: int, seed: int) -> None:
    longer = insert_words(words, number, SYNONYMS, drawn(seed))
    added = Counter(longer) - Counter(words)
    assert not Counter(words) - Counter(longer) and sum(added.values()) <= number
    assert set(added) <= {"board", "missing", "gone", "fast"}


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.integers(0, 5), st.integers())
def test_swaps_keep_the_words(words: list[str], number: int, seed: int) -> None:
    assert Counter(swap_words(words, number, drawn(seed))) == Counter(words)


def test_one_swap_moves_two_words() -> None:
    swapped = swap_words(["a", "b", "c", "d"], 1, drawn())
    assert sum(one != two for one, two in zip(swapped, "abcd", strict=True)) == 2


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.floats(0, 1), st.integers())
def test_deletion_keeps_one_word_at_least(words: list[str], probability: float, seed: int) -> None:
    left = delete_words(words, probability, drawn(seed))
    assert left and not Counter(left) - Counter(words)
    assert len(delete_words(words, 1.0, drawn(seed))) == 1
    assert delete_words(words, 0.0, drawn(seed)) == words


@given(st.text(), st.integers())
def test_any_text_survives(text: str, seed: int) -> None:
    variants = augment(text, SYNONYMS, drawn(seed))
    assert len(variants) == (9 if text.split() else 0) and all(variant.strip() for variant in variants)


@pytest.mark.parametrize("text", ["", "   ", "Karte", "银行卡 丢了", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439"])
def test_texts_without_known_words(text: str) -> None:
    assert {variant for variant in augment(text, SYNONYMS, drawn()) if len(text.split()) == 1} <= {text}


def write_wordnet(folder: Path, nouns: str) -> Path:
    licence = "  1 This is written for a test, in the form of WordNet's files.\n"
    for part in ("noun", "verb", "adj", "adv"):
        (folder / f"data.{part}").write_text(licence + (nouns if part == "noun" else ""), encoding="utf-8")
    return folder


def test_wordnet_files_are_read(tmp_path: Path) -> None:
    nouns = (
        "00000001 04 n 03 card 0 Board 0 playing_card 1 001 @ 00000002 n 0000 | a thing\n"
        "00000002 04 n 02 card 2 wag(p) 0 000 | a funny person\n"
    )
    synonyms = wordnet_synonyms(write_wordnet(tmp_path, nouns))
    assert sorted(synonyms("card")) == ["Board", "playing card", "wag"]
    assert synonyms("board") == ["card", "playing card"] and list(synonyms("nothing")) == []


def test_without_wordnet_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="apt install wordnet-base"):
        wordnet_synonyms(tmp_path / "none")
    write_wordnet(tmp_path, "this is no WordNet\n")
    with pytest.raises(ConfigError, match="no WordNet in"):
        wordnet_synonyms(tmp_path)


@pytest.mark.skipif(not (WORDNET / "data.noun").is_file(), reason="WordNet is not installed")
def test_the_real_wordnet() -> None:
    synonyms = wordnet_synonyms()
    assert "automobile" in synonyms("car") and "car" not in synonyms("car")
