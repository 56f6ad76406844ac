"""A classification task with train, validation and test rows that share no text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pgkd_agent.data.splitting import sample_rows, stratified_split
from pgkd_agent.data.taxonomy import Taxonomy, check_labels, taxonomy_of
from pgkd_agent.errors import DataError
from pgkd_agent.seeding import rng
from pgkd_agent.text import normalize
from pgkd_agent.types import Example

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learned. `test` may be empty; classes of the taxonomy may lack rows.

    `unlabelled` has texts that none of the others are, for a teacher to label.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    taxonomy: Taxonomy
    description: str = ""
    unlabelled: tuple[str, ...] = ()

    def with_unlabelled(self, texts: Iterable[str]) -> Task:
        """The same with a pool, of which texts that are a row's, or there before, are left out, aloud.

        Raises:
            DataError: None is left.
        """
        known = {normalize(row.text) for row in (*self.train, *self.validation, *self.test)}
        pool: dict[str, str] = {}
        num_texts = num_known = 0
        for text in texts:
            form = normalize(text)
            num_texts += 1
            num_known += form in known
            if form and form not in known:
                pool.setdefault(form, text)
        left_out = (
            f"of {num_texts} unlabelled texts {num_known} are labelled rows, and {num_texts - num_known - len(pool)} "
            "empty or there twice"
        )
        if not pool:
            raise DataError(f"no text is left for the teacher to label ({left_out}); give others, or none")
        if len(pool) < num_texts:
            logger.warning("%s: left out", left_out)
        return replace(self, unlabelled=tuple(pool.values()))


def prepare_task(
    train: Sequence[Example],
    validation: Sequence[Example] | None = None,
    test: Sequence[Example] = (),
    *,
    taxonomy: Taxonomy | None = None,
    rows: int | None = None,
    test_rows: int | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
    description: str = "",
) -> Task:
    """Draw, split and make disjoint.

    The taxonomy is taken from all of `train` before rows are drawn. With `validation` given, the drawn
    rows are all training rows; else they are split. A text that also occurs in validation or test is
    dropped from train, one of validation that occurs in test from validation; both are counted in the log.

    Args:
        test_rows: Test rows to draw, the same for every seed; None takes all.

    Raises:
        DataError: A label outside the taxonomy, or too few rows to train and validate.
    """
    taxonomy = taxonomy or taxonomy_of(train)
    for name, part in (("train", train), ("validation", validation or ()), ("test", test)):
        check_labels(part, taxonomy, name)
    drawn = _without(train, test, "train", "test")
    if test_rows is not None:
        test = sample_rows(test, test_rows, rng(0, 0, "test_rows"))
    if rows is not None:
        if rows > len(drawn):
            logger.warning("asked for %d rows, only %d are there", rows, len(drawn))
        drawn = sample_rows(drawn, rows, rng(seed, 0, "rows"))
    if validation is None:
        drawn, held = stratified_split(drawn, validation_share, rng(seed, 0, "split"))
    else:
        held = _without(validation, test, "validation", "test")
    drawn = _without(drawn, held, "train", "validation")
    if not drawn or not held:
        raise DataError(
            f"{len(drawn)} training and {len(held)} validation rows are left; both are needed: "
            "give more rows, or a validation file"
        )
    return Task(tuple(drawn), tuple(held), tuple(test), taxonomy, description)


def _without(rows: Sequence[Example], others: Iterable[Example], name: str, other_name: str) -> list[Example]:
    forms = {normalize(row.text) for row in others}
    kept = [row for row in rows if normalize(row.text) not in forms]
    if len(kept) < len(rows):
        logger.warning(
            "dropped %d of %d %s rows whose text is also in %s",
            len(rows) - len(kept),
            len(rows),
            name,
            other_name,
        )
    return kept
