"""The calls to the teacher that a run wrote down, read beside whatever else works on it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgkd_agent.errors import ConfigError, DataError, StorageError
from pgkd_agent.runs.samples import samples_of
from pgkd_agent.teacher.calls.call_log import FOUND
from pgkd_agent.teacher.calls.prices import PriceTable, load_prices
from pgkd_agent.teacher.prompting.parsing import parse_samples
from pgkd_agent.text import normalize, without_controls
from pgkd_agent.types import TokenUsage
from pgkd_agent.workbench.filters import CallFilters

LIST = (
    "SELECT id, at, kd_step, request_index, attempt, model, outcome, error, finish_reason, input_tokens, output_tokens,"
    " seconds, charged_input, charged_output"
)

Call = dict[str, Any]
"""Columns of the log; `cost` is None where price or tokens are not known."""


@dataclass(frozen=True)
class Written:
    """A sample as it stands in a reply, and what became of it."""

    text: str
    label: str
    fate: str


def read_calls(run: Path, filters: CallFilters, prices: PriceTable | None) -> tuple[list[Call], list[Call]]:
    """
    Returns:
        The calls that the filters let through, and all of them, oldest first; without prompts and replies.
    Raises:
        StorageError: The log is damaged.
    """
    columns = {column["name"] for column in _rows(run, "SELECT name FROM pragma_table_info('calls')")}
    batch = ", batch" if "batch" in columns else ""
    every = [_priced(call, prices) for call in _rows(run, f"{LIST}{batch} FROM calls ORDER BY id")]
    holds = {call["id"] for call in every}
    if filters.search:  # in SQL: prompts and replies of a run may be hundreds of megabytes
        wanted = f"%{_escaped(filters.search)}%"
        clause = "messages LIKE ? ESCAPE '\\' OR reply LIKE ? ESCAPE '\\'"
        in_json = f"%{_escaped(json.dumps(filters.search, ensure_ascii=False)[1:-1])}%"
        holds = {call["id"] for call in _rows(run, f"SELECT id FROM calls WHERE {clause}", in_json, wanted)}
    found = [
        call
        for call in every
        if call["id"] in holds
        and filters.step in ("", str(call["kd_step"]))
        and filters.outcome in ("", call["outcome"])
    ]
    return found, every


def read_call(run: Path, number: int, prices: PriceTable | None) -> Call:
    """One call with its prompt and its reply.

    Raises:
        DataError: There is none of this number.
        StorageError: The log is damaged.
    """
    call = next(_rows(run, "SELECT * FROM calls WHERE id = ?", number), None)
    if call is None:
        raise DataError(f"there is no call {number} in this run")
    messages = [{**message, "content": _shown(message.get("content", ""))} for message in json.loads(call["messages"])]
    settings = json.dumps(json.loads(call["settings"]), indent=1, ensure_ascii=False)
    return {**_priced(call, prices), "messages": messages, "settings": settings}


def neighbours(run: Path, number: int) -> tuple[int | None, int | None]:
    """The calls before and after one."""
    select = (
        "SELECT (SELECT MAX(id) FROM calls WHERE id < ?) AS before, (SELECT MIN(id) FROM calls WHERE id > ?) AS after"
    )
    row = next(_rows(run, select, number, number), {"before": None, "after": None})
    return row["before"], row["after"]


def written_in(run: Path, call: Call) -> list[Written]:
    """The samples in the reply of a call, as the run reads them, and what became of each."""
    fates: dict[str, str] = {}
    for sample in samples_of(run):  # accepted ones first, so that a text that came twice is accepted
        if all(sample[name] == call[name] for name in ("kd_step", "request_index")):
            fate = f"rejected: {sample['rule']}" if sample["rule"] else "accepted"
            fates.setdefault(normalize(sample["text"]), fate)
    return [
        Written(sample.text, sample.label, fates.get(normalize(without_controls(sample.text)), "not in this step"))
        for sample in parse_samples(call["reply"], default_label="").samples
    ]


def prices_of(file: Path | None) -> PriceTable | None:
    """The table that a run was priced with; None where it is no longer there."""
    try:
        return load_prices(file)
    except ConfigError:
        return None


def _priced(call: Call, prices: PriceTable | None) -> Call:
    """What counts against the caps is what is paid; a reply of another run costs nothing."""
    tokens = TokenUsage(call["charged_input"], call["charged_output"])
    tokens = tokens.in_batch() if call.get("batch") else tokens  # logs from before batch jobs do not say it
    cost = 0.0 if call["outcome"] == FOUND else prices.cost(call["model"], tokens) if prices else None
    return {**call, "cost": cost}


def _rows(run: Path, select: str, *values: Any) -> Iterator[Call]:
    file = run / "calls.sqlite"
    if not file.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows: Sequence[sqlite3.Row] = connection.execute(select, values).fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"call log {file} cannot be read: {error}") from error
    yield from map(dict, rows)


def _escaped(text: str) -> str:
    """For LIKE."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _shown(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=1, ensure_ascii=False)
