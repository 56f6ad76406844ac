"""Easy data augmentation (Wei and Zou 2019): variants of a text by four random operations on its words."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from pgkd_agent.errors import ConfigError

Synonyms = Callable[[str], Sequence[str]]
"""The synonyms of a word in small letters; none is an empty sequence."""

WORDNET = Path("/usr/share/wordnet")
"""Where Debian's package `wordnet-base` has its files."""

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
PUNCTUATION = ".,;:!?\"'()[]"

TRIES = 10
"""Words drawn for an insertion before it is given up: few words of a text may have synonyms."""


def augment(
    text: str, synonyms: Synonyms, drawn: random.Random, alpha: float = 0.1, num_aug: int = 9
) -> tuple[str, ...]:
    """`num_aug` variants, the four operations in equal parts; none of a text without words.

    A variant may equal the text where there is nothing to do, as in a text of one word.

    Args:
        alpha: Share of the words that an operation changes, at least one; of a deletion the probability of each.
    """
    words = text.split()
    if not words:
        return ()
    number = max(1, int(alpha * len(words)))
    operations: tuple[Callable[[], list[str]], ...] = (
        lambda: replace_words(words, number, synonyms, drawn),
        lambda: insert_words(words, number, synonyms, drawn),
        lambda: swap_words(words, number, drawn),
        lambda: delete_words(words, alpha, drawn),
    )
    each = num_aug // len(operations) + 1
    variants = [" ".join(operation()) for operation in operations for _ in range(each)]
    drawn.shuffle(variants)
    return tuple(variants[:num_aug])


def replace_words(words: Sequence[str], number: int, synonyms: Synonyms, drawn: random.Random) -> list[str]:
    """Up to `number` words by a synonym, wherever they stand; stop words stay."""
    candidates = sorted({key for key in map(_key, words) if key not in _stop_words() and synonyms(key)})
    chosen = drawn.sample(candidates, min(number, len(candidates)))
    by_key = {key: drawn.choice(synonyms(key)) for key in chosen}
    return [by_key.get(_key(word), word) for word in words]


def insert_words(words: Sequence[str], number: int, synonyms: Synonyms, drawn: random.Random) -> list[str]:
    """`number` synonyms of random words of the text at random places; fewer where words have none."""
    result = list(words)
    for _ in range(number):
        found = next((known for known in _drawn_synonyms(result, synonyms, drawn) if known), None)
        if found:
            result.insert(drawn.randint(0, len(result)), drawn.choice(found))
    return result


def swap_words(words: Sequence[str], number: int, drawn: random.Random) -> list[str]:
    """Two random words change places, `number` times."""
    result = list(words)
    for _ in range(number if len(result) > 1 else 0):
        one, two = drawn.sample(range(len(result)), 2)
        result[one], result[two] = result[two], result[one]
    return result


def delete_words(words: Sequence[str], probability: float, drawn: random.Random) -> list[str]:
    """Each word goes with this probability; one stays."""
    return [word for word in words if drawn.random() >= probability] or [drawn.choice(words)]


@lru_cache(maxsize=2)
def wordnet_synonyms(folder: Path = WORDNET) -> Synonyms:
    """Words that share a meaning with a word in WordNet, read from its `data` files (format: wndb(5WN)); 1 s.

    Raises:
        ConfigError: The files are not there, or not of this form.
    """
    found: dict[str, set[str]] = defaultdict(set)
    try:
        for part in PARTS_OF_SPEECH:
            with (folder / f"data.{part}").open(encoding="utf-8") as lines:
                for meaning in map(_meaning, (line for line in lines if not line.startswith(" "))):
                    for word in meaning:
                        found[word.lower()].update(meaning)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError(
            f"no WordNet in {folder} ({error}); install it (Debian, Ubuntu: apt install wordnet-base), or name its "
            "folder of data.noun, data.verb, ... with the option `wordnet` of the method"
        ) from error
    return from_table({word: sorted(others) for word, others in found.items()})


def from_table(table: Mapping[str, Sequence[str]]) -> Synonyms:
    """The words of a table under a word, but for the word itself."""
    return lambda word: [other for other in table.get(word, ()) if other.lower() != word]


def _meaning(line: str) -> list[str]:
    """The words of a line: offset, file, type, how many words in hexadecimal, then a word and its id in turns."""
    fields = line.split()
    count = int(fields[3], 16)
    return [fields[4 + 2 * number].split("(")[0].replace("_", " ") for number in range(count)]


def _drawn_synonyms(words: Sequence[str], synonyms: Synonyms, drawn: random.Random) -> Iterator[Sequence[str]]:
    for _ in range(TRIES):
        yield synonyms(_key(drawn.choice(words)))


def _key(word: str) -> str:
    return word.strip(PUNCTUATION).lower()


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # 1 s to import

    return frozenset(ENGLISH_STOP_WORDS)
