"""Algorithm 1: Performance-Guided Knowledge Distillation (Di Palo et al. 2024)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.loop.early_stopping import EarlyStopping
from pgkd_agent.loop.evidence import EvidenceLimits, balanced_sample, log_one_sided, select_evidence
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.observer import LoopObserver
from pgkd_agent.loop.protocols import Asked, Screener, Student, Teacher
from pgkd_agent.loop.scoring import score_history
from pgkd_agent.loop.training import fit_history
from pgkd_agent.metrics.calibration import calibrated_losses
from pgkd_agent.metrics.report import class_ids, evaluate, row_losses
from pgkd_agent.seeding import rng
from pgkd_agent.text import counted
from pgkd_agent.types import Evaluation, EvidenceItem, FitResult, StepRecord, TeacherRequest, TokenUsage, WrittenSample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PGKDResult:
    """`steps[0]` is the plain student, `best_step` the model with the lowest validation loss.

    `stopped_early`: patience ran out; `stopped_by`: a cap that was reached, in words; `row_losses`: of each validation
    row in nats, by each model, shape (n_steps, n_rows).
    """

    steps: tuple[StepRecord, ...]
    best_step: int
    history: History
    stopped_early: bool
    row_losses: np.ndarray
    stopped_by: str = ""


def run_pgkd(
    task: Task,
    student: Student,
    teacher: Teacher | None,
    screener: Screener,
    config: PGKDConfig,
    observer: LoopObserver | None = None,
) -> PGKDResult:
    """Run Algorithm 1 and leave `student` with the weights of the lowest validation loss.

    Departures from its letter: a model is evaluated right after its own fit (as in Figure 2), the plain
    student is a candidate for the best, and a step without an accepted sample keeps the model as it is.

    Args:
        teacher: None trains the plain student alone.
        observer: Told of the samples of each step, and of each model.
    Raises:
        TeacherError: The provider failed for good, or nothing readable ever came back.
        StudentDivergedError: A validation loss is not finite.
    """
    observer = observer or LoopObserver()
    num_kd_steps = config.pgkd.num_kd_steps if teacher else 0
    history = History.of(task.train)  # line 2
    stopping = EarlyStopping(config.pgkd.patience_limit)
    steps: list[StepRecord] = []
    losses: list[np.ndarray] = []
    asked: Asked | None = None
    trained = _train(student, history, task, config, observer, kd_step=0)  # line 1
    best = student.snapshot()
    for kd_step in range(num_kd_steps + 1):  # line 3; step 0 only enters the plain student
        if teacher and kd_step > 0:
            request, seconds = _prepare(student, history, trained, task, config, observer, kd_step)  # lines 4-5
            asked = _ask(teacher, screener, request, history, observer, seconds)  # line 6
            observer.on_samples(asked)
            has_new = bool(asked.screened.accepted)
            history = history.extended(asked.screened.accepted)  # line 7
            trained = _train(student, history, task, config, observer, kd_step) if has_new else trained.idle()  # 8-9
        is_best = stopping.update(kd_step, trained.evaluation.loss)  # lines 10-15
        if is_best:
            best = student.snapshot()  # lines 16-17
        steps.append(_record(kd_step, trained, asked, is_best, len(history)))
        losses.append(trained.row_losses)
        observer.on_step(steps[-1])
        if stopping.should_stop or steps[-1].stopped_by:  # lines 12-13; a cap
            break
    student.restore(best)
    return PGKDResult(  # line 21
        tuple(steps), stopping.best_index, history, stopping.should_stop, np.stack(losses), steps[-1].stopped_by
    )


@dataclass(frozen=True, slots=True)
class Trained:
    """A model after its fit.

    Attributes:
        row_losses: Of each validation row, in nats.
        seconds: Of fit and evaluation, 0 where a step brought nothing to fit.
    """

    fit: FitResult
    evaluation: Evaluation
    row_losses: np.ndarray
    seconds: float

    def idle(self) -> Trained:
        return replace(self, seconds=0.0)


def build_request(
    task: Task,
    history: History,
    scored: Sequence[EvidenceItem],
    evaluation: Evaluation,
    config: PGKDConfig,
    kd_step: int,
) -> TeacherRequest:
    """Select what the teacher is shown of the student.

    Args:
        scored: The rows that evidence is drawn from; where they are those of the history, also what became of
            earlier samples.
        evaluation: Of the student on the validation rows.
    """
    settings = config.evidence
    limits = EvidenceLimits(settings.correct, settings.misclassified, settings.hard_negatives)
    return TeacherRequest(
        kd_step=kd_step,
        num_samples=config.pgkd.pgkd_batch_size,
        taxonomy=task.taxonomy,
        task_description=task.description,
        report=evaluation.report,
        evidence=select_evidence(scored, limits, rng(config.seed, kd_step, "evidence")),
        few_shot=tuple(
            balanced_sample(task.train, settings.few_shot, rng(config.seed, kd_step, "few_shot"), lambda row: row.label)
        ),
        scored=tuple(scored),
        train=task.train,
        confusions=evaluation.confusions,
        written=_written(history, scored),
        num_labels=config.pgkd.labels_per_step if task.unlabelled else 0,
    )


def _written(history: History, scored: Sequence[EvidenceItem]) -> tuple[WrittenSample, ...]:
    if len(scored) != len(history):  # only the newest samples were scored, before they were trained on
        return ()
    return tuple(
        WrittenSample(row.text, row.label, row.kd_step, item.predicted_label)
        for row, item in zip(history.rows, scored, strict=True)
        if not row.is_real
    )


def _prepare(
    student: Student,
    history: History,
    trained: Trained,
    task: Task,
    config: PGKDConfig,
    observer: LoopObserver,
    kd_step: int,
) -> tuple[TeacherRequest, float]:
    """The request of a KD step, and the seconds its evidence took."""
    observer.on_phase(kd_step, "finding rows that the student gets right and wrong")
    started = time.perf_counter()
    scored = score_history(student, history, trained.fit, task, config, kd_step)
    seconds = time.perf_counter() - started
    request = build_request(task, history, scored, trained.evaluation, config, kd_step)
    log_one_sided(scored, config.evidence.source, kd_step)
    return request, seconds


def _ask(
    teacher: Teacher,
    screener: Screener,
    request: TeacherRequest,
    history: History,
    observer: LoopObserver,
    evidence_seconds: float,
) -> Asked:
    started = time.perf_counter()
    observer.on_phase(request.kd_step, "asking the teacher")
    reply = teacher.write(request)
    observer.on_phase(request.kd_step, f"checking {counted(len(reply.samples), 'sample')}")
    screened = screener.screen(reply.samples, history, reply.shown_texts, request.kd_step)
    seconds = time.perf_counter() - started
    return Asked(request, reply, screened, seconds, evidence_seconds)


def _train(
    student: Student,
    history: History,
    task: Task,
    config: PGKDConfig,
    observer: LoopObserver,
    kd_step: int,
) -> Trained:
    started = time.perf_counter()
    observer.on_phase(kd_step, f"training the student on {counted(len(history), 'row')}")
    fit = fit_history(student, history, task.validation, kd_step, config.student.balance)
    probabilities = student.predict(texts_of(task.validation))
    evaluation = evaluate(probabilities, task.validation, task.taxonomy)
    if config.student.best_by == "calibrated_loss":
        losses = calibrated_losses(probabilities, class_ids(task.validation, task.taxonomy))
        evaluation = replace(evaluation, loss=float(losses.mean()))
    else:
        losses = row_losses(probabilities, task.validation, task.taxonomy)
    return Trained(fit, evaluation, losses, time.perf_counter() - started)


def _record(kd_step: int, trained: Trained, asked: Asked | None, is_best: bool, history_rows: int) -> StepRecord:
    record = StepRecord(
        kd_step=kd_step,
        validation=trained.evaluation,
        is_best=is_best,
        epochs=trained.fit.epochs if trained.seconds else 0,
        gradient_steps=trained.fit.gradient_steps if trained.seconds else 0,
        learning_rate=trained.fit.learning_rate,
        history_rows=history_rows,
        student_seconds=trained.seconds,
    )
    if asked is not None:
        reply = asked.reply
        record = replace(
            record,
            asked=asked.request.num_samples + reply.num_labels,
            parsed=len(reply.samples),
            accepted=len(asked.screened.accepted),
            malformed=reply.num_malformed,
            refused=reply.num_refused,
            rejected=asked.screened.rejected_by_rule,
            num_requests=reply.num_requests + asked.screened.num_requests,
            usage=(reply.usage if reply.num_requests else TokenUsage()) + asked.screened.usage,
            teacher_seconds=asked.seconds,
            evidence_seconds=asked.evidence_seconds,
            teacher=reply.teacher,
            stopped_by=reply.stopped_by or asked.screened.stopped_by,
        )
    logger.info(
        "KD step %d: validation loss %.4f%s, macro F1 %.3f, %d of %d samples accepted",
        kd_step,
        record.validation.loss,
        " (best)" if is_best else "",
        record.validation.report.macro_f1,
        record.accepted,
        record.asked,
    )
    return record
