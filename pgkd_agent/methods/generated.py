"""Methods whose rows an LLM writes without knowing the student."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pgkd_agent.budget import Budget
from pgkd_agent.errors import BudgetExceededError, TeacherOutputError
from pgkd_agent.guardrails import Accepted, Guardrails
from pgkd_agent.history import History, texts_of
from pgkd_agent.methods.loops import AcceptAll
from pgkd_agent.methods.rows import take_shots, train_in_stages
from pgkd_agent.methods.setting import Outcome, Setting, batches, new_student, on_test
from pgkd_agent.metrics import report_without_rows
from pgkd_agent.prices import load_prices
from pgkd_agent.protocols import Screener, Teacher
from pgkd_agent.resources import resource_folder
from pgkd_agent.seeding import rng
from pgkd_agent.teachers import open_teacher, teacher_prompt
from pgkd_agent.text import normalize
from pgkd_agent.types import (
    Evidence,
    Example,
    Label,
    TeacherReply,
    TeacherRequest,
    TokenUsage,
)

VALIDATION_SHARE = 0.1
"""Of the generated rows; the source's 90/10 split."""


def prompt_file(name: str) -> Path:
    return resource_folder("prompts") / "methods" / f"{name}.j2"


def zerogen(setting: Setting, per_class: int = 10) -> Outcome:
    """ZeroGen (Ye et al. 2022): the teacher writes texts from the names of the classes, and no real row is used.

    Trained and selected on generated rows alone, with the student's own recipe instead of the source's (3 epochs at
    2e-5, at which a small encoder learns nothing), and sampled at the teacher's temperature instead of by nucleus.

    Args:
        per_class: Texts asked for of each class.
    """
    started = time.perf_counter()
    accepted, reply = _write(setting, per_class)
    rows = [Example(item.text, item.label) for item in accepted]
    rng(setting.config.seed, 0, "generated").shuffle(rows)
    held = max(1, round(VALIDATION_SHARE * len(rows)))
    if len(rows) <= held:
        raise TeacherOutputError(f"only {len(rows)} of {per_class} texts a class passed the guardrails")
    student = new_student(setting)
    fit = student.fit(rows[held:], rows[:held], 0)
    report, predicted = on_test(setting, student.predict)
    return Outcome(
        report,
        predicted,
        rows=len(rows) - held,
        gradient_steps=fit.epochs * batches(len(rows) - held, setting.config),
        requests=reply.num_requests,
        usage=reply.usage,
        seconds=time.perf_counter() - started,
    )


def auggpt(setting: Setting, shots: int | None = None, steps: int | None = None, num_aug: int = 6) -> Outcome:
    """AugGPT (Dai et al. 2023): the teacher says each training row in other words; the label is inherited.

    Args:
        shots, steps: As those of `eda`.
        num_aug: Rephrasings of a row.
    """
    started = time.perf_counter()
    real = take_shots(setting, shots)
    rows = {normalize(row.text): row for row in real}
    held_out = {normalize(row.text) for row in (*setting.task.validation, *setting.task.test)}
    requests, usage = 0, TokenUsage()
    with _teacher(setting, "auggpt", num_aug, AcceptAll()) as opened:
        for number, row in enumerate(real, 1):
            reply = _whole(opened.teacher.write(_about(setting, row, number, num_aug)))
            requests, usage = requests + reply.num_requests, usage + reply.usage
            for sample in reply.samples:
                rows.setdefault(normalize(sample.text), Example(sample.text.strip(), row.label))
    kept = [row for text, row in rows.items() if text and text not in held_out]
    outcome = train_in_stages(setting, [kept], steps, shots is None)
    return replace(outcome, requests=requests, usage=usage, seconds=time.perf_counter() - started)


def _write(setting: Setting, per_class: int) -> tuple[tuple[Accepted, ...], TeacherReply]:
    """Texts of all classes alike that passed the guardrails."""
    task, number = setting.task, per_class * len(setting.task.taxonomy)
    rules = setting.config.guardrails.model_copy(update={"max_per_class": number})
    screener = Guardrails(rules, task.taxonomy, texts_of((*task.validation, *task.test)))
    request = _request(setting, 1, number, task.taxonomy, ())
    with _teacher(setting, "zerogen", None, screener) as opened:
        reply = _whole(opened.teacher.write(request))
        return opened.screener.screen(reply.samples, History(()), reply.shown_texts, 1).accepted, reply


def _whole(reply: TeacherReply) -> TeacherReply:
    """
    Raises:
        BudgetExceededError: A cap cut it short.
    """
    if reply.stopped_by:
        raise BudgetExceededError(reply.stopped_by)
    return reply


def _about(setting: Setting, row: Example, number: int, num_samples: int) -> TeacherRequest:
    """A request of its own for a row: the only row of the only class."""
    label = next(label for label in setting.task.taxonomy if label.name == row.label)
    return _request(setting, number, num_samples, (label,), (row,))


def _request(
    setting: Setting, kd_step: int, num_samples: int, taxonomy: tuple[Label, ...], train: tuple[Example, ...]
) -> TeacherRequest:
    """Without evidence, and with a report that makes all classes alike."""
    return TeacherRequest(
        kd_step=kd_step,
        num_samples=num_samples,
        taxonomy=taxonomy,
        task_description=setting.task.description,
        report=report_without_rows(taxonomy),
        evidence=Evidence(),
        few_shot=(),
        train=train,
    )


@dataclass(frozen=True)
class _Opened:
    teacher: Teacher
    screener: Screener


@contextmanager
def _teacher(setting: Setting, prompt: str, at_a_time: int | None, screener: Screener) -> Iterator[_Opened]:
    """The teacher of the settings with another prompt; calls that were answered before are taken from the log.

    Args:
        at_a_time: Samples of a request; None takes the settings'.
    """
    config = setting.config
    changes: dict[str, object] = {"prompt": str(prompt_file(prompt)), "mode": "chain"}
    if at_a_time is not None:
        changes["samples_per_request"] = at_a_time
    config = config.model_copy(
        update={
            "pgkd": config.pgkd.model_copy(update={"num_kd_steps": 1}),  # else no teacher is opened
            "teacher": config.teacher.model_copy(update=changes),
        }
    )
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    setting.folder.mkdir(parents=True, exist_ok=True)
    template, log = teacher_prompt(config.teacher), setting.folder / "calls.sqlite"
    with open_teacher(setting.teacher, template, setting.task, config, screener, budget, log) as opened:
        opened.check()
        assert opened.teacher is not None
        yield _Opened(opened.teacher, opened.screener)
