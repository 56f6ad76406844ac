"""Algorithm 1 with the teacher of the settings, and with one that has nothing new to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, cycle, islice
from pathlib import Path
from typing import Any

from pydantic import StrictBool

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods.eda import WORDNET, Synonyms, augment, wordnet_synonyms
from pgkd_agent.experiments.methods.method import HARD_LABELS, TEACHER, Count, Method, Options
from pgkd_agent.experiments.methods.prompted import labelling_prompt
from pgkd_agent.experiments.methods.setting import ClassCounts, LoopStudent, Outcome, Predict, Setting, on_test
from pgkd_agent.files import RUN
from pgkd_agent.loop.algorithm import PGKDResult, run_pgkd
from pgkd_agent.loop.guardrails import Guardrails, Screened
from pgkd_agent.loop.history import History, HistoryRow, texts_of
from pgkd_agent.loop.protocols import Screener, Teacher
from pgkd_agent.pipeline import resume, run
from pgkd_agent.seeding import rng
from pgkd_agent.teacher.opening import annotation_prompt, teacher_prompt
from pgkd_agent.teacher.prompting.templates import PromptTemplate
from pgkd_agent.text import counted
from pgkd_agent.types import Example, GeneratedSample, TeacherReply, TeacherRequest, TokenUsage


def plain(setting: Setting, options: Options) -> Outcome:
    """The student on the real rows alone: Algorithm 1, line 1."""
    return _in_steps(setting, None, 0, AcceptAll())


def pgkd(setting: Setting, options: Options) -> Outcome:
    """PGKD (Di Palo et al. 2024) as `pgkd distill` runs it; its ablations are prompt variants and settings."""
    folder = setting.folder / "run"
    if (folder / RUN).is_file():
        result = resume(folder, cache_counts=True)
    else:
        config = setting.config.changed({"student.refit": False})  # which no other method has
        result = run(setting.task, config, None, folder, cache_counts=True)
    outcome = _of_steps(setting, result.training, result.classifier.probabilities)
    return replace(outcome, cost=result.summary.teacher.cost)


def pgkd_label(setting: Setting, options: Options) -> Outcome:
    """The teacher writes nothing, and labels texts that the student is least sure of."""
    return pgkd(_labelling(setting, {"pgkd.pgkd_batch_size": 0, "pgkd.label_choice": "unsure"}), options)


def label_drawn(setting: Setting, options: Options) -> Outcome:
    """`pgkd_label` with texts drawn at random: the control of its choice."""
    return pgkd(_labelling(setting, {"pgkd.pgkd_batch_size": 0, "pgkd.label_choice": "drawn"}), options)


def pgkd_write_and_label(setting: Setting, options: Options) -> Outcome:
    """Both in each step."""
    return pgkd(_labelling(setting, {"pgkd.label_choice": "unsure"}), options)


def _labelling(setting: Setting, values: Mapping[str, Any]) -> Setting:
    return replace(setting, config=setting.config.changed(values))


def _prompts_of_labelling(config: PGKDConfig) -> Iterator[PromptTemplate]:
    yield annotation_prompt(config.teacher)


def _prompts_of_both(config: PGKDConfig) -> Iterator[PromptTemplate]:
    yield from _prompts_of_pgkd(config)
    yield from _prompts_of_labelling(config)


def _prompts_of_pgkd(config: PGKDConfig) -> Iterator[PromptTemplate]:
    """Also what an agent falls back to, and what samples are verified with."""
    yield teacher_prompt(config.teacher)
    if config.teacher.mode == "agent":
        yield teacher_prompt(config.teacher.changed({"mode": "chain", "prompt": None}))
    if config.guardrails.verify:
        yield labelling_prompt(config)


class FrozenOptions(Options):
    samples: Count | None = None
    """Only so many, the first that were accepted; None takes all."""
    at_once: StrictBool = False
    """All in one KD step, which costs one fit: for studies of what a student makes of them."""


def frozen(setting: Setting, options: FrozenOptions) -> Outcome:
    """The loop with the samples that a run of PGKD accepted, step by step: an LLM writes once for many students.

    They are screened again. Those of a run with another seed were written for another student, with other rows in view,
    some of which are validation rows here: PGKD without guidance by the student at hand.
    """
    if setting.pool is None:
        raise ConfigError("`frozen` trains on what a run of PGKD accepted: name the method it belongs to (`of`)")
    pool = _first(setting.pool, options.samples)
    if options.at_once:
        pool = [[row for step in pool for row in step]]
    task = setting.task
    screener = Guardrails(setting.config.guardrails, task.taxonomy, texts_of((*task.validation, *task.test)))
    return _in_steps(setting, PoolTeacher(pool), len(pool), screener)


def _first(pool: Sequence[Sequence[Example]], number: int | None) -> list[Sequence[Example]]:
    """So many rows of the pool, in as many KD steps as they were accepted in."""
    if number is None:
        return list(pool)
    found = sum(map(len, pool))
    if number > found:
        raise ConfigError(
            f"`frozen` is to take {counted(number, 'sample')}, and the run that it takes them from accepted {found}"
        )
    before = accumulate((len(step) for step in pool), initial=0)
    return [step[: number - start] for step, start in zip(pool, before, strict=False) if start < number]


def control(setting: Setting, options: Options) -> Outcome:
    """The loop with the teacher's samples replaced by real training rows once more: as many of each class in each step.

    Steps, fits and selection are those of the run of PGKD, whose patience it does not apply again, so what PGKD has
    over it is due to the samples.
    """
    return _repeat(setting, None)


class WordNetOptions(Options):
    wordnet: str = str(WORDNET)
    """Where its files are."""


def control_eda(setting: Setting, options: WordNetOptions) -> Outcome:
    """`control` with a variant by EDA of each repeated row."""
    return _repeat(setting, wordnet_synonyms(Path(options.wordnet)))


def _repeat(setting: Setting, synonyms: Synonyms | None) -> Outcome:
    if setting.accepted is None:
        raise ConfigError("a control repeats what a run of PGKD accepted: name the method it belongs to (`of`)")
    teacher = RepeatingTeacher(setting.accepted, setting.config.seed, synonyms)
    return _in_steps(setting, teacher, len(setting.accepted), AcceptAll())


def _in_steps(setting: Setting, teacher: Teacher | None, number: int, screener: Screener) -> Outcome:
    """The loop over a number of steps that is known: the run behind it has had patience already."""
    student = LoopStudent(setting)
    config = setting.config.changed({"pgkd.num_kd_steps": number, "pgkd.patience_limit": number})
    result = run_pgkd(setting.task, student, teacher if number else None, screener, config)
    return replace(_of_steps(setting, result, student.predict), seconds=student.seconds_saved)


def _of_steps(setting: Setting, result: PGKDResult, predict: Predict) -> Outcome:
    """The outcome of a loop."""
    per_step = [
        [row.label for row in result.history.rows if row.kd_step == kd_step] for kd_step in range(len(result.steps))
    ]
    return replace(
        on_test(setting, predict),
        validation_loss=result.steps[result.best_step].validation.loss,
        accepted=tuple(dict(sorted(Counter(labels).items())) for labels in per_step[1:]),
        rows=len(result.history),
        gradient_steps=sum(step.gradient_steps for step in result.steps),
        requests=sum(step.num_requests for step in result.steps),
        usage=sum((step.usage for step in result.steps), TokenUsage()),
    )


class PoolTeacher:
    """Hands out what was written before, in each KD step that step's samples."""

    def __init__(self, pool: Sequence[Sequence[Example]]) -> None:
        self._pool = pool

    def write(self, request: TeacherRequest) -> TeacherReply:
        rows = self._pool[request.kd_step - 1]
        return TeacherReply(tuple(GeneratedSample(row.text, row.label) for row in rows), num_requests=0)


class RepeatingTeacher:
    """Hands out training rows again, each class's own in turns from a random order.

    Args:
        counts: Rows per label, of each KD step; a class without training rows gets rows of all classes.
        synonyms: With them each row comes as a variant by EDA.
    """

    def __init__(self, counts: Sequence[ClassCounts], seed: int, synonyms: Synonyms | None = None) -> None:
        self._counts = counts
        self._seed = seed
        self._synonyms = synonyms

    def write(self, request: TeacherRequest) -> TeacherReply:
        samples: list[GeneratedSample] = []
        for label, count in sorted(self._counts[request.kd_step - 1].items()):
            before = sum(counts.get(label, 0) for counts in self._counts[: request.kd_step - 1])
            rows = islice(repeated_rows(request.train, label, self._seed), before, before + count)
            for number, row in enumerate(rows):
                samples.append(GeneratedSample(self._text(row, f"{request.kd_step}/{label}/{number}"), row.label))
        return TeacherReply(tuple(samples), num_requests=0)

    def _text(self, row: Example, place: str) -> str:
        if self._synonyms is None:
            return row.text
        variants = augment(row.text, self._synonyms, rng(self._seed, 0, f"variant/{place}"), num_aug=1)
        return variants[0] if variants else row.text


def repeated_rows(train: Sequence[Example], label: str, seed: int) -> Iterator[Example]:
    """The rows of a class in a random order, again and again; of a class without any, those of all classes."""
    rows = [row for row in train if row.label == label] or list(train)
    rng(seed, 0, f"repeat/{label}").shuffle(rows)
    return cycle(rows)


class AcceptAll:
    """No guardrails: for rows whose labels are known."""

    def screen(
        self, samples: Sequence[GeneratedSample], history: History, shown_texts: frozenset[str], kd_step: int
    ) -> Screened:
        accepted = (HistoryRow(item.text, item.label, kd_step, item.request_index) for item in samples)
        return Screened(tuple(accepted), ())


LOOP = ("student", "pgkd", "evidence", "guardrails", *TEACHER)
LABELS: dict[str, Any] = {"options": Options, "reads": LOOP, "gives": ("counts",), "labels_texts": True}

METHODS: tuple[Method[Any], ...] = (
    Method("plain", plain, Options, ("student",), ignores=HARD_LABELS),
    Method("full_shot", plain, Options, ("student",), ignores=HARD_LABELS, all_rows=True),
    Method("control", control, Options, ("student",), repeats="counts"),
    Method("control_eda", control_eda, WordNetOptions, ("student",), repeats="counts"),
    Method(
        "pgkd",
        pgkd,
        Options,
        LOOP,
        prompts=_prompts_of_pgkd,
        gives=("counts", "samples"),
    ),
    Method("pgkd_label", pgkd_label, **LABELS, prompts=_prompts_of_labelling),
    Method("label_drawn", label_drawn, **LABELS, prompts=_prompts_of_labelling),
    Method("pgkd_write_and_label", pgkd_write_and_label, **LABELS, prompts=_prompts_of_both),
    Method("frozen", frozen, FrozenOptions, ("student", "guardrails"), repeats="samples", gives=("counts",)),
)
