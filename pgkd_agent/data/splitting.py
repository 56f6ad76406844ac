"""Seeded samples and stratified splits that never fail for a rare class."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from pgkd_agent.types import Example


def sample_rows(rows: Sequence[Example], size: int, random: random.Random) -> list[Example]:
    """Draw `size` rows without replacement, each equally likely; all of them where there are fewer."""
    return random.sample(list(rows), min(size, len(rows)))


def stratified_split(
    rows: Sequence[Example], validation_share: float, random: random.Random
) -> tuple[list[Example], list[Example]]:
    """Split into train and validation, `round(n * share)` validation rows where the classes allow it.

    Every class gives its exact share rounded down; what is missing goes to the largest remainders, larger
    classes first among equals. A class keeps at least one train row, so a singleton is always in train.
    """
    by_class: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_class[row.label].append(row)
    quota = _largest_remainder({label: len(members) for label, members in by_class.items()}, validation_share)
    train: list[Example] = []
    validation: list[Example] = []
    for label in sorted(by_class):
        members = by_class[label]
        random.shuffle(members)
        validation += members[: quota[label]]
        train += members[quota[label] :]
    random.shuffle(train)
    random.shuffle(validation)
    return train, validation


def _largest_remainder(counts: dict[str, int], share: float) -> dict[str, int]:
    quota = {label: min(int(count * share), count - 1) for label, count in counts.items()}
    missing = round(sum(counts.values()) * share) - sum(quota.values())
    by_remainder = sorted(counts, key=lambda label: (-(counts[label] * share) % -1, -counts[label], label))
    for label in by_remainder:
        if missing > 0 and quota[label] < counts[label] - 1:
            quota[label] += 1
            missing -= 1
    return quota
