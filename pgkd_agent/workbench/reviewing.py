"""A person's word on the samples of a run: `review.jsonl` in it, which `pgkd samples import` takes as it is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from rapidfuzz import fuzz, process

from pgkd_agent.errors import DataError, StorageError
from pgkd_agent.files import as_line, lock_beside, read_lines, write_whole
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.runs.samples import ACCEPTED, REJECTED, samples_of
from pgkd_agent.runs.stored import StoredRun
from pgkd_agent.text import normalize
from pgkd_agent.types import Label
from pgkd_agent.workbench.filters import SampleFilters

REVIEW_FILE = "review.jsonl"
IDENTITY = ("text", "kd_step", "request_index", "rule")
"""What a review does not change of a sample, by which a line of the file is known to be of it."""
REPEATS = ("near_duplicate", "duplicate", "prompt_copy")
"""Rules that find a row of the history again; `held_out` finds a validation or test row."""
FILTERED = {"step": "kd_step", "label": "label", "status": "status", "rule": "rule", "source": "source"}
"""Column by filter."""

Sample = dict[str, Any]
"""`COLUMNS` of a sample and its number; label and status as a person left them, and `was_label`, `was_status`."""


class Decision(BaseModel):
    """What a person says of a sample; a label is given with `accept` alone."""

    number: int
    action: Literal["accept", "reject", "undo"]
    label: str = ""


@dataclass(frozen=True)
class Match:
    """The row that a rejected sample repeats; `likeness` is in percent."""

    text: str
    label: str
    where: str
    likeness: float


def read_samples(run: Path) -> list[Sample]:
    """All samples of a run, numbered in the order of the export, with what a person has said of them.

    Raises:
        ConfigError, StorageError: See `samples_of`; or the review is of other samples than these.
    """
    samples = [
        {**row, "number": number, "was_label": row["label"], "was_status": row["status"], "reviewed": False}
        for number, row in enumerate(samples_of(run))
    ]
    review = read_lines(run / REVIEW_FILE)
    is_its_own = len(review) <= len(samples) and all(
        row.get(name) == sample[name] for row, sample in zip(review, samples, strict=False) for name in IDENTITY
    )
    if not is_its_own:
        raise StorageError(
            f"{run / REVIEW_FILE} is not of the samples of this run as they are: another program, or a later step, "
            "changed them; train on it with `pgkd samples import`, or give it another name to review anew"
        )
    for row, sample in zip(review, samples, strict=False):  # a run that went on has more samples than its review
        sample |= {"label": row["label"], "status": row["status"], "reviewed": bool(row.get("reviewed"))}
    return samples


def decide(run: Path, taxonomy: Sequence[Label], decision: Decision) -> tuple[Sample, int]:
    """Write down a decision.

    Returns:
        The sample as it is now, and how many samples a person has decided on.
    Raises:
        DataError: There is no such sample, or it cannot be accepted as it is.
        ConfigError, StorageError: See `read_samples`; or the disk refuses.
    """
    with ExitStack() as stack:
        stack.callback(lock_beside(run / REVIEW_FILE).release)
        samples = read_samples(run)
        if not 0 <= decision.number < len(samples):
            raise DataError(f"there is no sample {decision.number}; the run has {len(samples)}")
        sample = samples[decision.number]
        sample |= _decided(sample, taxonomy, decision)
        left_out = ("number", "was_label", "was_status")
        lines = ({name: value for name, value in row.items() if name not in left_out} for row in samples)
        write_whole(run / REVIEW_FILE, "".join(map(as_line, lines)))
    return sample, sum(row["reviewed"] for row in samples)


def _decided(sample: Sample, taxonomy: Sequence[Label], decision: Decision) -> Sample:
    if decision.action == "undo":
        return {"label": sample["was_label"], "status": sample["was_status"], "reviewed": False}
    if decision.action == "reject":
        return {"status": REJECTED, "reviewed": True}
    label = LabelResolver(taxonomy)(decision.label or sample["label"])
    if label is None:
        raise DataError(f"{decision.label or sample['label']!r} is none of the run's classes; choose one of them")
    if not sample["text"].strip():
        raise DataError("this sample has no text; it cannot be accepted")
    return {"label": label, "status": ACCEPTED, "reviewed": True}


def filtered(samples: Sequence[Sample], filters: SampleFilters) -> list[Sample]:
    """The samples that all filters let through, in their order."""
    wanted = {column: getattr(filters, name) for name, column in FILTERED.items()}
    wanted["reviewed"] = {"yes": "True", "no": "False"}.get(filters.decided, "")
    return [
        sample
        for sample in samples
        if all(value in ("", str(sample[column])) for column, value in wanted.items()) and filters.finds(sample["text"])
    ]


def matches_of(samples: Sequence[Sample], run: Path, stored: StoredRun) -> dict[int, Match]:
    """The rows that rejected samples repeat, by the number of the sample; the likest one of several.

    A run does not keep which they were, so they are looked for anew, among the rows that it had by then.

    Args:
        samples: Those of a page.
    """
    history = read_lines(run / "history.jsonl")
    steps = [row["kd_step"] for row in history]  # ascending: it only grows
    known = [
        (f"a row of step {step}" if step else "a training row", row["text"], row["label"])
        for step, row in zip(steps, history, strict=True)
    ]
    held_out = [
        (f"a {name} row", row.text, row.label) for name in ("validation", "test") for row in getattr(stored.task, name)
    ]
    normal = {rule: [normalize(text) for _, text, _ in rows] for rule, rows in (("held_out", held_out), ("", known))}
    cutoff = stored.config.guardrails.near_duplicate_ratio
    found = {}
    for sample in samples:
        is_held_out = sample["rule"] == "held_out"
        if not is_held_out and sample["rule"] not in REPEATS:
            continue
        rows, texts = (held_out, normal["held_out"]) if is_held_out else (known, normal[""])
        until = len(rows) if is_held_out else bisect_right(steps, sample["kd_step"])
        best = process.extractOne(normalize(sample["text"]), texts[:until], scorer=fuzz.ratio, score_cutoff=cutoff)
        if best:
            where, text, label = rows[best[2]]
            found[sample["number"]] = Match(text, label, where, best[1])
    return found
