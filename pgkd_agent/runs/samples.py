"""The teacher's samples as a dataset: out of a run for review, and back in to train on what was approved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import read_records
from pgkd_agent.data.reading import SEPARATED, complete_rows, named_rows
from pgkd_agent.data.values import as_text
from pgkd_agent.errors import ConfigError, DataError
from pgkd_agent.files import read_lines, remove_leftovers, replacing, storing
from pgkd_agent.loop.guardrails import LabelResolver
from pgkd_agent.runs.stored import StoredRun, check_files, read_run
from pgkd_agent.types import Example, GeneratedSample, Source, TeacherReply, TeacherRequest

ACCEPTED, REJECTED = "accepted", "rejected"
FORMATS = (".csv", ".jsonl", ".ndjson", ".parquet")
COLUMNS = ("text", "label", "status", "source", "rule", "reason", "kd_step", "request_index", "teacher", "prompt")
"""`rule` and `reason` say why a sample was rejected; they are empty for the others."""

_ADVICE = f"fill them in, or give them the status {REJECTED!r}"

_FORMULA = re.compile("'*[=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
"""What a spreadsheet takes for the beginning of a formula, wide signs too, after any apostrophes."""

_CARD = """---
tags:
- synthetic
task_categories:
- text-classification
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: rejected
    path: data/rejected-*
---

Training samples by {teacher} for a text classifier ({labels} labels) with pgkd_agent, prompt {prompt}. `train` passed
the guardrails; `rejected` did not, with the rule and the reason. `source` says which texts the teacher wrote, and which
were there and have only their label from it ({labelled} of {rows}). The terms of the teacher's provider apply.
"""


def samples_of(run: Path) -> list[dict[str, Any]]:
    """All samples of a run, by step, accepted ones first; each a mapping with `COLUMNS`.

    Raises:
        ConfigError, StorageError: See `read_run`.
    """
    meta = read_run(run).meta
    origin = {"teacher": meta["teacher"], "prompt": f"{meta['prompt']['name']} {meta['prompt']['sha256'][:12]}"}
    accepted = [row for row in read_lines(run / "history.jsonl") if row["kd_step"] > 0]
    rejected = read_lines(run / "rejected.jsonl")
    rows = [{**row, "status": ACCEPTED, "rule": "", "reason": "", **origin} for row in accepted]
    rows += [{**row, "status": REJECTED, **origin} for row in rejected]
    rows.sort(key=lambda row: row["kd_step"])
    return [{column: row[column] for column in COLUMNS} for row in rows]


def accepted_rows(path: Path, num_kd_steps: int) -> list[list[Example]]:
    """The samples that a run accepted, those of each KD step together.

    Raises:
        StorageError: See `check_files`.
    """
    check_files(path)
    rows = read_lines(path / "history.jsonl")
    return [
        [Example(row["text"], row["label"]) for row in rows if row["kd_step"] == kd_step]
        for kd_step in range(1, num_kd_steps + 1)
    ]


def export_samples(run: Path, target: Path) -> Counter[str]:
    """Write the samples of a run to a CSV, JSONL or Parquet file, or, without such a suffix, to a folder.

    The folder has the layout of a dataset on the model hub: `datasets.load_dataset(folder)` reads it, with the splits
    `train` (accepted) and `rejected`.

    Returns:
        Samples by status.
    Raises:
        ConfigError: The target exists, or there is nothing to write.
        StorageError: See `samples_of`; or the disk refuses.
    """
    stored = read_run(run)
    rows = samples_of(run)
    if not rows:
        raise ConfigError(f"{run} holds no samples; a run has some once a teacher has answered")
    write_table(rows, target, lambda table, folder: _write_folder(table, rows, folder, len(stored.task.taxonomy)))
    return Counter(row["status"] for row in rows)


def write_table(
    rows: Sequence[dict[str, Any]], target: Path, write_folder: Callable[[Any, Path], None] | None = None
) -> None:
    """Write rows to a new CSV (safe for spreadsheets), JSONL or Parquet file, which is there whole or not at all.

    Args:
        write_folder: Takes the rows as a dataset, and a folder to make, where the target has no suffix; None takes no
            such target.
    Raises:
        ConfigError: See `check_table`.
        StorageError: The disk refuses.
    """
    import datasets

    check_table(target, write_folder is not None)
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_list([*rows])
    with storing(target):
        remove_leftovers(target.parent, target.name)
    with replacing(target) as fresh:
        if target.suffix == ".csv":
            cells = [{key: _as_cell(cell) for key, cell in row.items()} for row in rows]
            datasets.Dataset.from_list(cells).to_csv(fresh)
        elif target.suffix == ".parquet":
            table.to_parquet(fresh)
        elif target.suffix:
            table.to_json(fresh, force_ascii=False)
        elif write_folder:
            write_folder(table, fresh)


def check_table(target: Path, may_be_folder: bool = False) -> None:
    """
    Raises:
        ConfigError: `write_table` cannot write there: the target exists, or has another suffix.
    """
    if target.exists():
        raise ConfigError(f"{target} exists already; name another one, or remove it")
    if target.suffix not in FORMATS and (target.suffix or not may_be_folder):
        folder = " or a folder" if may_be_folder else ""
        raise ConfigError(f"{target}: unknown format {target.suffix!r}; take {', '.join(FORMATS)}{folder}")


def _write_folder(table: Any, rows: Sequence[dict[str, Any]], folder: Path, num_labels: int) -> None:
    (folder / "data").mkdir(parents=True)
    for split, status in (("train", ACCEPTED), ("rejected", REJECTED)):
        part = table.select([number for number, row in enumerate(rows) if row["status"] == status])
        part.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    labelled = sum(row["source"] == "labelled" for row in rows)
    first = {name: rows[0][name] for name in ("teacher", "prompt")}
    card = _CARD.format(**first, labels=num_labels, labelled=labelled, rows=len(rows))
    (folder / "README.md").write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class ReviewedSamples:
    """A teacher that writes, in one KD step, what a person has approved."""

    samples: tuple[GeneratedSample, ...]
    model_id: str
    most_samples: None = None  # a person chose them

    def write(self, request: TeacherRequest) -> TeacherReply:
        return TeacherReply(self.samples, num_requests=0)


@dataclass(frozen=True)
class Retraining:
    """What `pipeline.run` needs: the rows and settings of the old run, and the approved samples as teacher."""

    stored: StoredRun
    config: PGKDConfig
    teacher: ReviewedSamples
    not_approved: int


def prepare_retraining(run: Path, file: Path) -> Retraining:
    """Read reviewed samples for a run: real rows, validation, test and settings are those of the run.

    The run's guardrails screen the samples again, but for the cap per class. Labels that a person approved are not
    softened (`student.soft_labels`).

    Args:
        file: Columns `text` and `label`; with a column `status`, only rows that say `accepted`, or nothing, count.
            Where `source` says `labelled`, a row is screened as a text that was there.
    Raises:
        DataError: Nothing is approved, a status is neither `accepted` nor `rejected`, or labels are not in the run's
            taxonomy; the rows are named.
        ConfigError, StorageError: See `read_run`.
    """
    stored = read_run(run)
    numbers, examples, sources, not_approved = _approved(file)
    resolve = LabelResolver(stored.task.taxonomy)
    unknown = [number for number, row in zip(numbers, examples, strict=True) if resolve(row.label) is None]
    if unknown:
        label = examples[numbers.index(unknown[0])].label
        raise DataError(
            f"{file}: label {label!r} is not in the taxonomy of {run}, in {named_rows(unknown)}; correct it"
        )
    config = stored.config.changed(
        {
            "pgkd.num_kd_steps": 1,
            "pgkd.pgkd_batch_size": len(examples),
            "pgkd.labels_per_step": 0,
            "student.soft_labels": 0.0,
            "teacher.prompt": None,
            "teacher.mode": "chain",
            "teacher.ensemble": (),
            "guardrails.verify": False,  # a person has
            **{f"budget.{cap}": None for cap in type(stored.config.budget).model_fields},  # no call is made
        }
    )
    samples = tuple(
        GeneratedSample(row.text, row.label, source=source) for row, source in zip(examples, sources, strict=True)
    )
    # What of a pool is approved is among the samples.
    stored = replace(stored, task=replace(stored.task, unlabelled=()))
    return Retraining(stored, config, ReviewedSamples(samples, f"samples of {file}"), not_approved)


def _approved(file: Path) -> tuple[list[int], list[Example], list[Source], int]:
    """
    Returns:
        Numbers of the approved rows from 1, the rows, where each is from, and how many others there are.
    """
    records = read_records(file)
    for column in ("text", "label"):
        if records and not any(column in row for row in records):
            raise DataError(f"{file} has no column {column!r}; it has: {', '.join(map(repr, records[0]))}")
    is_table = file.suffix.lower() in SEPARATED
    given = [as_text(row.get("status"), f"{file}, row {n}: the status").lower() for n, row in enumerate(records, 1)]
    strange = [number for number, status in enumerate(given, 1) if status not in (ACCEPTED, REJECTED, "")]
    if strange:
        raise DataError(
            f"{file}: status {given[strange[0] - 1]!r}, in {named_rows(strange)}; expected {ACCEPTED!r} or {REJECTED!r}"
        )
    numbers = [number for number, status in enumerate(given, 1) if status != REJECTED]
    if not numbers:
        raise DataError(f"{file}: none of its {len(records)} rows has the status {ACCEPTED!r}")
    cells = [[records[number - 1].get(column) for column in ("text", "label")] for number in numbers]
    pairs = [(_from_cell(text), _from_cell(label)) if is_table else (text, label) for text, label in cells]
    sources: list[Source] = [
        "labelled" if records[number - 1].get("source") == "labelled" else "written" for number in numbers
    ]
    rows = complete_rows(pairs, str(file), numbers=numbers, advice=_ADVICE)
    return numbers, rows, sources, len(records) - len(numbers)


def _as_cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula begins with an apostrophe in CSV, as OWASP says."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _from_cell(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value
