"""The runs in a folder, a line about each; one that is damaged has a line that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.errors import ConfigError, PGKDError, StorageError
from pgkd_agent.files import RUN, read_lines
from pgkd_agent.metrics.intervals import Interval
from pgkd_agent.runs.report.story import Row, damaged, read_result
from pgkd_agent.runs.stored import POOL_FILE, read_meta
from pgkd_agent.runs.summary import RunResult
from pgkd_agent.text import counted

MARKS = (RUN, "steps.jsonl", "result.json")
"""A folder with one of them is a run, if only what is left of one."""
DEEPEST = 5
"""Folders below the one that is looked into; `pgkd compare` keeps its runs so deep."""
MOST_LINES = 2000
"""Kept in memory, so that only runs that changed are read again."""
DECIDES = "macro_f1"
"""The metric whose interval says whether a run helped."""

HELPED, UNCLEAR, HARMED = "helped", "no clear difference", "harmed"
PLAIN, NOT_TESTED, NOT_ENDED, DAMAGED = "no teacher", "not tested", "not ended", "damaged"


@dataclass(frozen=True)
class RunLine:
    """What the list says of a run.

    Attributes:
        effect: One of the words above.
        problem: What is wrong with a damaged run, or how far one came that has not ended; else empty.
        method: What the teacher did.
        before, after: Accuracy and macro F1 on the test rows; None without any.
        gain: Of `DECIDES`, with its interval.
        cost: None where it is not known.
    """

    name: str
    effect: str
    problem: str = ""
    student: str = ""
    teacher: str = ""
    method: str = ""
    started: str = ""
    steps: int | None = None
    before: tuple[float, float] | None = None
    after: tuple[float, float] | None = None
    gain: Interval | None = None
    cost: float | None = None
    currency: str = ""


def runs_in(folder: Path) -> dict[str, Path]:
    """Run directories by the name that pages give them: their path within the folder, or that of the folder itself.

    Raises:
        ConfigError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; name a folder of run directories, or one of them")
    if _is_run(folder):
        return {folder.resolve().name: folder}
    return {path.relative_to(folder).as_posix(): path for path in _below(folder, DEEPEST)}


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:  # what may not be read is none to show
        return
    for path in inside:
        if _is_run(path):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKS)


def line_of(name: str, run: Path) -> RunLine:
    """A line about a run, whatever state it is in."""
    try:
        stamps = tuple((run / mark).stat().st_mtime_ns if (run / mark).exists() else 0 for mark in MARKS)
        return _line(name, run, stamps)
    except PGKDError as error:
        return RunLine(name, DAMAGED, str(error))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return RunLine(name, DAMAGED, str(damaged(run, error)))


@lru_cache(MOST_LINES)
def _line(name: str, run: Path, _stamps: tuple[int, ...]) -> RunLine:
    meta, result = read_meta(run), read_result(run)
    try:
        config = build_config(file=run / "config.yaml")
    except ConfigError as error:
        raise StorageError(f"{run / 'config.yaml'} is damaged: {error}") from error
    line = RunLine(
        name,
        effect_of(result),
        student=str(meta["student"]["name"]),
        teacher=str(meta["teacher"]),
        method=method_of(config, meta, (run / POOL_FILE).is_file()),
        started=str(meta["started_at"]),
    )
    if result is None:
        steps = len(read_lines(run / "steps.jsonl"))
        return replace(line, problem=f"{counted(steps, 'model')} so far", steps=max(steps - 1, 0))
    line = replace(line, steps=result.kd_steps, cost=result.teacher.cost, currency=result.teacher.currency)
    if result.test is None:
        return line
    before, after = ((one.report.accuracy, one.report.macro_f1) for one in (result.test.before, result.test.after))
    return replace(line, before=before, after=after, gain=result.test.gain.get(DECIDES))


def method_of(config: PGKDConfig, meta: Row, has_pool: bool) -> str:
    """What the teacher of a run did, in two words.

    Args:
        has_pool: Whether there are texts for it to label.
    """
    if not config.pgkd.num_kd_steps:
        return "plain student"
    if str(meta["teacher"]).startswith("samples of "):
        return "reviewed samples"
    writes, labels = config.pgkd.pgkd_batch_size > 0, has_pool and config.pgkd.labels_per_step > 0
    if config.teacher.mode == "agent":
        return "agent writes"
    return "writes and labels" if writes and labels else "labels" if labels else "writes"


def effect_of(result: RunResult | None) -> str:
    """Whether the returned model is better than the plain student on the test rows, by the interval of macro F1."""
    if result is None:
        return NOT_ENDED
    if result.kd_steps == 0:
        return PLAIN
    if result.test is None:
        return NOT_TESTED
    gain = result.test.gain.get(DECIDES)
    if gain is None or gain.low <= 0 <= gain.high:
        return UNCLEAR
    return HELPED if gain.low > 0 else HARMED
