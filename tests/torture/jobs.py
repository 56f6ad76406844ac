"""What is disturbed: commands with a tiny student and a teacher that answers by the request; what they leave."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from pgkd_agent.config import TeacherSettings
from pgkd_agent.teacher.providers import Capabilities, ChatTeacher, Provider, register
from tests.integration.conftest import FILLER, TOPICS, make_student, sentences

COUNT = "TORTURE_CALLS"
"""Environment variable: the file where each call that reaches the teacher leaves a line."""


CHECKED = "ok"
"""Reply to the call that finds out whether the teacher answers."""


class Teacher(BaseChatModel):
    """What it answers depends on the request alone. Each call is counted as it arrives, as a provider would bill it."""

    @property
    def _llm_type(self) -> str:
        return "torture"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = hashlib.sha256(json.dumps([[str(m.content) for m in messages], kwargs], sort_keys=True).encode())
        with open(os.environ[COUNT], "a") as file:
            file.write(asked.hexdigest() + "\n")
        reply = _reply(kwargs, random.Random(asked.hexdigest()))
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        message = AIMessage(content=reply, usage_metadata=usage, response_metadata={"finish_reason": "stop"})
        return ChatResult(generations=[ChatGeneration(message=message)])


def _reply(settings: dict[str, Any], chosen: random.Random) -> str:
    if "extra_body" not in settings:
        return CHECKED
    fields = settings["extra_body"]["response_format"]["json_schema"]["schema"]["properties"]
    if "class_label" in fields:
        return json.dumps({"class_label": chosen.choice(fields["class_label"]["enum"])})
    samples = []
    for _ in range(2):
        label = chosen.choice(fields["samples"]["items"]["properties"]["label"]["enum"])
        samples.append({"text": " ".join(chosen.sample(FILLER, 6) + chosen.sample(TOPICS[label], 2)), "label": label})
    return json.dumps({"samples": samples})


def _build(name: str, settings: TeacherSettings, _max_tokens: int) -> ChatTeacher:
    return ChatTeacher(Teacher(), f"torture:{name}")


EMBEDDED = ("--set", "teacher.max_tokens=48", "--set", "teacher.samples_per_request=1", "--set",
            "pgkd.pgkd_batch_size=2")  # fmt: skip
"""A prompt takes it some seconds."""


@dataclass(frozen=True)
class Job:
    """
    Attributes:
        command: As a person gives it, in a folder with the inputs.
        again: What goes on after it was stopped: the same command where there is no other.
        out: File or folder that is to be made.
        goes_on: False where a person removes what a stopped one left, and begins anew.
    """

    name: str
    command: tuple[str, ...]
    out: str
    goes_on: bool = True
    again: Callable[[Path], tuple[str, ...] | None] = lambda folder: None

    def resuming(self, folder: Path) -> tuple[str, ...]:
        return self.again(folder) or self.command


def prepare(folder: Path) -> None:
    """The inputs of all jobs: rows, texts, a comparison, settings, the student."""
    register(Provider("torture", _build, Capabilities(("json_schema", "text"), seed="call")))
    make_student(folder / "student")
    rows = folder / "data" / "topics"
    rows.mkdir(parents=True)
    for name, per_class, seed in (("train", 8, 0), ("val", 5, 1), ("test", 6, 2)):
        lines = [json.dumps({"text": row.text, "label": row.label}) + "\n" for row in sentences(per_class, seed)]
        (rows / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (rows / "labels.json").write_text(json.dumps(list(TOPICS)), encoding="utf-8")
    (folder / "texts.txt").write_text("".join(f"{row.text}\n" for row in sentences(5, 7)), encoding="utf-8")
    settings = {
        "student": {
            "name": str(folder / "student"),
            "learning_rate": 0.02,
            "max_epochs": 2,
            "bf16": "off",
            "refit": True,
        },
        "pgkd": {"pgkd_batch_size": 4},
        "teacher": {"prompt": "per_class", "samples_per_request": 2, "max_concurrency": 1},
    }
    (folder / "settings.yaml").write_text(json.dumps(settings), encoding="utf-8")
    plan = {
        "seeds": [1],
        "settings": {**settings, "teacher": {**settings["teacher"], "spec": "torture:m"}},
        "datasets": {"topics": {}},
        "methods": {
            "plain": {},
            "pgkd": {"settings": {"pgkd": {"num_kd_steps": 1}}},
            "control": {"of": "pgkd"},
            "zero_shot": {"options": {"rows": 6}},
        },
    }
    (folder / "plan.yaml").write_text(json.dumps(plan), encoding="utf-8")


def jobs(inputs: Path) -> dict[str, Job]:
    """By name. Those that need a run find a finished one in the inputs, `run`, once `distill` was there."""
    data, settings = inputs / "data" / "topics", ("--config", str(inputs / "settings.yaml"))
    teacher = ("--teacher", "torture:m")

    def resume(folder: Path) -> tuple[str, ...] | None:
        return ("distill", "--resume", "run") if (folder / "run" / "meta.json").exists() else None

    rows = ("--train", f"{data}/train.jsonl", "--val", f"{data}/val.jsonl", "--test", f"{data}/test.jsonl")
    all_jobs = [
        Job("distill", ("distill", *rows, *teacher, "--steps", "2", "--out", "run", *settings), "run", again=resume),
        Job("compare", ("compare", f"{inputs}/plan.yaml", "--data", f"{inputs}/data", "--out", "out"), "out"),
        Job("annotate", ("annotate", f"{inputs}/run", f"{inputs}/texts.txt", *teacher, "--labels", "6", "--out",
                         "labels.csv", *settings), "labels.csv"),
        Job("evaluate", ("evaluate", f"{data}/test.jsonl", *teacher, "--rows", "6", "--out", "answers.jsonl",
                         *settings), "answers.jsonl"),
        Job("classify", ("classify", f"{inputs}/run", f"{inputs}/texts.txt", "--out", "table.csv"), "table.csv"),
        Job("import", ("samples", "import", f"{inputs}/run", f"{inputs}/samples.csv", "--out", "run"), "run",
            goes_on=False),
        Job("embedded", ("distill", *rows, "--teacher", "local:smollm2", "--steps", "1", "--out", "run", *settings,
            *EMBEDDED), "run", again=resume),
    ]  # fmt: skip
    return {job.name: job for job in all_jobs}


TIMES = re.compile(r"started[\w ,|:]*[\d:T+.-]+|data-value=\"[\d.]+\">\d+</td></tr>|Seconds: [\w ,.]+")


def left_in(folder: Path) -> dict[str, Any]:
    """Everything below a folder that a result is: contents by path, without times and locks."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock" and not path.is_dir()
    }


def _content(path: Path) -> Any:
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as connection:
            select = "SELECT key, outcome, reply FROM calls WHERE outcome != 'sent' AND reply != ?"
            return sorted(connection.execute(select, (CHECKED,)).fetchall())  # a resume does not check its teacher
    if path.suffix == ".safetensors" or path.suffix == ".parquet":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    text = path.read_text(encoding="utf-8")
    if path.name in ("results.md", "checksums.jsonl"):  # of files that hold seconds
        return ""
    if path.name == "results.csv":
        return [_timeless(row) for row in csv.DictReader(text.splitlines())]
    if path.suffix == ".json" and path.name != "tokenizer.json":
        return _timeless(json.loads(text))
    if path.suffix == ".jsonl":
        lines = text.splitlines()
        return [_timeless(json.loads(line)) if line.endswith("}") else line for line in lines]
    return TIMES.sub("", text)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        value = {name: part for name, part in value.items() if name != "sha256" or "cell" not in value}
        return {
            name: _timeless(part)
            for name, part in value.items()
            if not name.endswith("seconds") and name not in ("seconds", "started_at")
        }
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of files that are missing, more, or other."""
    return [
        f"{name} is missing"
        if name not in found
        else f"{name} {'differs' + _where(expected[name], found[name]) if name in expected else 'is left'}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def _where(expected: Any, found: Any) -> str:
    """The first line that differs."""
    pairs = zip(str(expected).splitlines(), str(found).splitlines(), strict=False)
    return next((f" ({one[:60]!r} is {other[:60]!r})" for one, other in pairs if one != other), "")


def sent_again(calls: Path) -> int:
    """Calls that were sent before in the same words."""
    sent = calls.read_text().split() if calls.exists() else []
    return len(sent) - len({*sent})


def paid_twice(calls: Path, folder: Path, usual: int) -> list[str]:
    """What was sent more often than calls were under way when a process died, or is in no account.

    Args:
        usual: `sent_again` of an undisturbed command.
    """
    sent = Counter(calls.read_text().split() if calls.exists() else ())
    logged: Counter[str] = Counter()
    for path in folder.rglob("*.sqlite"):
        if "replies" not in path.parts:
            with closing(sqlite3.connect(path)) as connection:
                logged.update(outcome for (outcome,) in connection.execute("SELECT outcome FROM calls"))
    open_calls = logged["sent"]
    again = sent_again(calls) - usual
    return [f"{again} calls were sent again, {open_calls} were under way"] * (again > open_calls) + [
        f"{sum(sent.values())} calls were sent, {logged.total()} are in the log"
    ] * (sum(sent.values()) > logged.total())
