"""What a saved model is asked about: texts, and what only came in place of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pgkd_agent.errors import DataError
from pgkd_agent.text import shorten, well_formed

Answer = TypeVar("Answer")


def text_of(found: Any, what: str = "the input") -> str:
    """The text, with a replacement character for each half of a surrogate pair.

    Raises:
        DataError: It is none, such as None, a number or bytes.
    """
    return _only_text(found, what, well_formed)


def _only_text(found: Any, what: str, mend: Callable[[str], str]) -> str:
    if not isinstance(found, str):
        raise DataError(f"{what} is {shorten(repr(found), 40)} ({type(found).__name__}), expected a text")
    return mend(found)


def only_texts(found: Sequence[Any], mend: Callable[[str], str] = well_formed) -> list[str]:
    """
    Args:
        mend: Repairs halves of surrogate pairs.
    Raises:
        DataError: One of them is no text, or a single text is in place of a list.
    """
    if isinstance(found, str | bytes):
        raise DataError("expected a list of texts, found a single one; `invoke` takes one")
    return [_only_text(each, f"text {number} of {len(found)}", mend) for number, each in enumerate(found, 1)]


def answered(inputs: Sequence[Any], answer: Callable[[dict[int, str]], Sequence[Answer]]) -> list[Exception | Answer]:
    """In the order of the inputs an answer to each text, and a `DataError` for what is none.

    Args:
        answer: Takes the texts by number, in order.
    """
    texts: dict[int, str] = {}
    found: dict[int, Exception | Answer] = {}
    for number, each in enumerate(inputs):
        try:
            texts[number] = text_of(each, f"text {number + 1} of {len(inputs)}")
        except DataError as error:
            found[number] = error
    found.update(zip(texts, answer(texts), strict=True))
    return [found[number] for number in range(len(inputs))]
