"""What a teacher's work came to, from the run directory it is stored in."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rapidfuzz import fuzz, process

from pgkd_agent.errors import StorageError
from pgkd_agent.files import read_lines
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.runs.stored import check_files, read_run
from pgkd_agent.runs.summary import RunResult
from pgkd_agent.teacher.prompting.parsing import parse_samples
from pgkd_agent.teacher.prompting.planning import shrunk_f1
from pgkd_agent.text import normalize
from pgkd_agent.types import ClassMetrics, Label

INVALID = ("label", "empty", "length")
"""Rules about a sample by itself."""
REPEATED = ("prompt_copy", "duplicate", "near_duplicate")


@dataclass(frozen=True)
class Teaching:
    """Over all steps of a run.

    Attributes:
        parsed: Samples that could be read; `malformed` are pieces of replies that were none.
        replies: Of the teacher, and how many of them held a sample that could be read.
        valid: Of these, those with a label of the taxonomy and a text of allowed length.
        rejected: By rule.
        cost: In the price table's currency, None where the price is not known.
        seconds: Of writing and screening.
        novelty: Mean over the accepted of 1 - likeness to the nearest training text, in [0, 1]; None of none.
        evenness: Entropy of the accepted over classes, as a share of the most possible; None of fewer than two.
        aim: By how much the mean F1 of the accepted samples' classes was below that of all classes, on the validation
            rows before the first step: above 0 where weak classes got more.
    """

    asked: int
    parsed: int
    malformed: int
    replies: int
    readable_replies: int
    refused: int
    valid: int
    accepted: int
    rejected: Mapping[str, int]
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None
    seconds: float
    novelty: float | None
    evenness: float | None
    aim: float | None

    @property
    def parse_rate(self) -> float | None:
        """Of the replies, those with a sample that could be read."""
        return _share(self.readable_replies, self.replies)

    @property
    def accept_rate(self) -> float | None:
        """Of the samples asked for."""
        return _share(self.accepted, self.asked)

    @property
    def repetition_rate(self) -> float | None:
        """Of the valid ones, those that repeat a row, a text of the prompt, or each other."""
        return _share(sum(self.rejected.get(rule, 0) for rule in REPEATED), self.valid)


def read_teaching(run: Path) -> Teaching:
    """
    Raises:
        StorageError: It is no finished run, or a damaged one.
    """
    check_files(run)
    try:
        content = json.loads((run / "result.json").read_text(encoding="utf-8"))
        result = TypeAdapter(RunResult).validate_python(content)
        first, *_ = read_lines(run / "steps.jsonl")
        classes = [ClassMetrics(**row) for row in first["validation"]["report"]["classes"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
        raise StorageError(f"{run} holds no finished run: {type(error).__name__}: {error}") from error
    samples, used = result.samples, result.teacher
    replies, resolve = _replies(run), LabelResolver([Label(row.label) for row in classes])
    history = read_lines(run / "history.jsonl")
    accepted = [row for row in history if row["kd_step"] > 0]
    return Teaching(
        **asdict(samples),
        replies=len(replies),
        readable_replies=sum(bool(parse_samples(reply, resolve=resolve).samples) for reply in replies),
        valid=samples.parsed - sum(samples.rejected.get(rule, 0) for rule in INVALID),
        requests=used.requests,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost=used.cost,
        seconds=result.seconds["teacher"],
        novelty=novelty([row["text"] for row in accepted], [row["text"] for row in history if row["kd_step"] == 0]),
        evenness=evenness([row["label"] for row in accepted], len(classes)),
        aim=aim([row["label"] for row in accepted], classes),
    )


def novelty(texts: Sequence[str], known: Sequence[str]) -> float | None:
    """Mean of 1 - likeness (rapidfuzz `ratio`) to the nearest known text."""
    if not texts:
        return None
    others = [normalize(text) for text in known]
    nearest = [process.extractOne(normalize(text), others, scorer=fuzz.ratio)[1] for text in texts]
    return 1 - sum(nearest) / len(nearest) / 100


def evenness(labels: Sequence[str], num_classes: int) -> float | None:
    """1 where as many classes as possible have the same number of samples, 0 where one has all."""
    most = min(len(labels), num_classes)
    if most < 2:
        return None
    shares = [count / len(labels) for count in Counter(labels).values()]
    return -sum(share * math.log(share) for share in shares) / math.log(most)


def aim(labels: Sequence[str], classes: Sequence[ClassMetrics]) -> float | None:
    """Mean F1 of all classes less that of the samples' classes; F1 is shrunk by support as in planning."""
    if not labels:
        return None
    with_data = [row.f1 for row in classes if row.has_data]
    mean_f1 = sum(with_data) / len(with_data)
    f1 = {row.label: shrunk_f1(row, mean_f1) for row in classes}
    return sum(f1.values()) / len(f1) - sum(f1[label] for label in labels) / len(labels)


def _replies(run: Path) -> list[str]:
    """To the prompts that ask for samples; a refusal is an empty one."""
    from pgkd_agent.teacher.calls.call_log import ANSWERED, FOUND, CallLog

    prompt = read_run(run).meta["prompt"]["sha256"]
    calls = CallLog(run / "calls.sqlite")
    try:
        return [
            str(call["reply"] or "")
            for call in calls
            if call["outcome"] in (ANSWERED, FOUND) and call["prompt_hash"] == prompt
        ]
    finally:
        calls.close()


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
