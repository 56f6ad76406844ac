"""Open the teacher of a run: from settings, a LangChain chat model, or an object of the caller's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import EnsembleMember, PGKDConfig, TeacherSettings, provider_of
from pgkd_agent.data import Task
from pgkd_agent.errors import ConfigError
from pgkd_agent.loop.observer import LoopObserver
from pgkd_agent.loop.protocols import Screener, Teacher
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt
from pgkd_agent.types import Example

if TYPE_CHECKING:
    from pgkd_agent.teacher.calls.gated import GatedChatModel
    from pgkd_agent.teacher.labelling import Pool
    from pgkd_agent.teacher.prompting.requests import PromptRequest, RequestPlanner

MAX_REPLY_TOKENS = 4096
"""What even older hosted models write; a longer reply is cut off, and its whole samples are kept."""


@dataclass(frozen=True)
class OpenTeacher:
    """What a run works with.

    Attributes:
        teacher: None where the run asks none.
        screener: The one that was given, or one that verifies too.
        models: Names of the chat models behind the teacher, as in a price table.
        name: Of the teacher, for records.
        require_room: Told the first request; raises BudgetExceededError where the caps leave no room for it.
        check: Finds out whether it answers; raises TeacherUnavailableError where not.
    """

    teacher: Teacher | None
    screener: Screener
    models: tuple[str, ...] = ()
    name: str = "none"
    require_room: Callable[[PromptRequest], None] = lambda request: None
    check: Callable[[], None] = lambda: None


def prompt_variant(settings: TeacherSettings) -> str:
    """The variant asked for; else `agent` in agent mode, `per_class` for local teachers, `paper`."""
    if settings.prompt:
        return settings.prompt
    if settings.mode == "agent":
        return "agent"
    return "per_class" if settings.is_local else "paper"


def teacher_prompt(settings: TeacherSettings) -> PromptTemplate:
    """
    Raises:
        PromptError: See `load_prompt`.
        ConfigError: An agent with a prompt of many requests a step: it is asked once, and looks up the rest. An agent
            by batch jobs: each of its calls waits for the one before.
    """
    if settings.mode == "agent" and settings.batch:
        raise ConfigError(
            "`teacher.batch` does not go with `teacher.mode=agent`: an agent's calls wait for one another, each would "
            "be a job of its own; leave out one of the two"
        )
    template = load_prompt(prompt_variant(settings), folder=settings.prompt_folder)
    if settings.mode == "agent" and template.is_per_class:
        raise ConfigError(
            f"teacher.mode agent needs a prompt over all classes, and {template.name!r} is about one at a time; leave "
            "out `teacher.prompt`, or take `teacher.prompt=agent`"
        )
    return template


def texts_to_label(task: Task, config: PGKDConfig) -> int:
    """How many texts of its pool the teacher labels in a KD step.

    Raises:
        ConfigError: None, and it writes no samples either.
    """
    number = config.pgkd.labels_per_step if task.unlabelled else 0
    if not number and not config.pgkd.pgkd_batch_size:
        lacking = "`pgkd.labels_per_step=0` labels none" if task.unlabelled else "there are no unlabelled texts"
        raise ConfigError(f"`pgkd.pgkd_batch_size=0` has the teacher label texts and write none, and {lacking}")
    return number


@contextmanager
def open_teacher(
    given: Any,
    template: PromptTemplate,
    task: Task,
    config: PGKDConfig,
    screener: Screener,
    budget: Budget,
    log: Path | None = None,
    observer: LoopObserver | None = None,
    replayed_steps: int = 0,
    pool: Pool | None = None,
) -> Iterator[OpenTeacher]:
    """Build the teachers of the settings, or one around what is given, and close them in the end.

    Args:
        given: A LangChain chat model, or an object with `write`; None takes the settings.
        log: File for all calls; None keeps them for the time of the run.
        replayed_steps: Steps that are stored; their calls are taken from the log, and never sent.
        pool: Texts to be labelled.
    Raises:
        ConfigError, TeacherUnavailableError: See `build_teacher`; also for settings that do not go together.
        StorageError: Log or cache cannot be opened.
    """
    if config.pgkd.num_kd_steps == 0:
        yield OpenTeacher(None, screener)
        return
    if hasattr(given, "write"):
        if config.guardrails.verify:
            raise ConfigError("guardrails.verify needs a teacher that is a chat model; this one only has write()")
        if any(cap is not None for cap in config.budget.model_dump().values()):
            raise ConfigError("the budget's caps need a teacher that is a chat model; this one only has write()")
        if pool:
            raise ConfigError("unlabelled texts need a teacher that is a chat model; this one only has write()")
        yield OpenTeacher(given, screener, name=getattr(given, "model_id", type(given).__name__))
        return

    from pgkd_agent.teacher.calls.models import open_models

    batch_size = config.pgkd.pgkd_batch_size
    teachers = [(one, reply_tokens(template, task.train, one, batch_size)) for one in members(config.teacher)]
    observer = observer or LoopObserver()
    with open_models(given, teachers, config.seed, budget, log, replayed_steps, on_wait=observer.on_wait) as models:
        opened = _working(models, template, task, config, screener, observer)
        yield _labelling(opened, models[0], pool, task, config, observer) if pool else opened


def _working(
    models: Sequence[GatedChatModel],
    template: PromptTemplate,
    task: Task,
    config: PGKDConfig,
    screener: Screener,
    observer: LoopObserver,
) -> OpenTeacher:
    """Teachers, and what else a run wants of them."""
    from pgkd_agent.teacher.chain import ChainTeacher
    from pgkd_agent.teacher.ensemble import EnsembleTeacher
    from pgkd_agent.teacher.prompting.requests import RequestPlanner
    from pgkd_agent.teacher.verification import VerifyingScreener
    from pgkd_agent.teacher.zero_shot import ZeroShotClassifier

    planner = RequestPlanner.of(template, config)
    fallback = RequestPlanner.of(teacher_prompt(config.teacher.changed({"mode": "chain", "prompt": None})), config)
    teachers = [_teacher(model, planner, fallback, config, observer) for model in models]
    ensemble = EnsembleTeacher(teachers)
    if config.guardrails.verify:
        asking = [model.for_labels() for model in models]
        classifiers = [ZeroShotClassifier(one, config.zero_shot, task.taxonomy, task.description) for one in asking]
        screener = VerifyingScreener(screener, lambda kd_step: classifiers[ensemble.turn(kd_step)])
    names = tuple(model.model_id for model in models)
    return OpenTeacher(
        ensemble if len(teachers) > 1 else teachers[0],
        screener,
        names,
        name=", ".join(names),
        require_room=ChainTeacher(models[0], planner).require_room,
        check=lambda: _check(models),
    )


def _labelling(
    opened: OpenTeacher, model: GatedChatModel, pool: Pool, task: Task, config: PGKDConfig, observer: LoopObserver
) -> OpenTeacher:
    """Beside writing, or in its place where no samples are asked for; of an ensemble the first one labels."""
    from pgkd_agent.loop.choosing import at_random, choose
    from pgkd_agent.teacher.annotation import Annotator
    from pgkd_agent.teacher.labelling import LabellingTeacher, WritingAndLabelling

    template = annotation_prompt(config.teacher)
    annotator = Annotator(model.for_labels(), template, task.taxonomy, task.description)
    labeller = LabellingTeacher(
        annotator,
        pool,
        task.train,
        task.taxonomy,
        config.seed,
        choose if config.pgkd.label_choice == "unsure" else at_random(config.seed),
        on_request=observer.on_request,
        on_gold=observer.on_gold,
        on_phase=observer.on_phase,
    )
    if opened.teacher is None or not config.pgkd.pgkd_batch_size:
        return replace(opened, teacher=labeller)
    return replace(opened, teacher=WritingAndLabelling(opened.teacher, labeller))


def annotation_prompt(settings: TeacherSettings) -> PromptTemplate:
    """What the teacher reads about a text that it labels.

    Raises:
        PromptError: See `load_prompt`.
    """
    return load_prompt(settings.label_prompt, "annotate", settings.prompt_folder)


def members(settings: TeacherSettings) -> list[TeacherSettings]:
    """The settings of each teacher of an ensemble; of a single one, its own."""
    return [settings, *(_member(member, settings) for member in settings.ensemble)]


def _member(member: EnsembleMember, first: TeacherSettings) -> TeacherSettings:
    """A server holds for all teachers of its provider: without it they would go to the provider itself."""
    is_alike = provider_of(member.spec) == provider_of(first.spec)
    base_url = member.base_url or (first.base_url if is_alike else None)
    return first.changed({"spec": member.spec, "base_url": base_url})


def _check(models: Sequence[GatedChatModel]) -> None:
    for model in models:
        model.caller.check()


def _teacher(
    model: GatedChatModel,
    planner: RequestPlanner,
    fallback: RequestPlanner,
    config: PGKDConfig,
    observer: LoopObserver,
) -> Teacher:
    """
    Args:
        fallback: Of what an agent is that cannot look anything up.
    """
    from pgkd_agent.teacher.chain import ChainTeacher

    if config.teacher.mode == "chain":
        return ChainTeacher(model, planner, observer.on_request, observer.on_plan)

    from pgkd_agent.teacher.agent import AgentTeacher
    from pgkd_agent.teacher.tools import teacher_tools

    return AgentTeacher(
        model,
        planner,
        teacher_tools,
        ChainTeacher(model, fallback, observer.on_request),
        observer.on_transcript,
    )


def samples_asked(template: PromptTemplate, settings: TeacherSettings, batch_size: int) -> int:
    """Of one request."""
    return settings.samples_per_request if template.is_per_class else batch_size


def reply_tokens(template: PromptTemplate, train: Sequence[Example], settings: TeacherSettings, batch_size: int) -> int:
    """Room for the samples of one request: half again as long as the longest 5 % of training texts.

    Three characters a token is a cautious average for English; 48 tokens go to label and JSON, whose white space
    small models are generous with.
    """
    if settings.max_tokens is not None:
        return settings.max_tokens
    lengths = sorted(len(row.text) for row in train)
    long_text = lengths[int(0.95 * (len(lengths) - 1))]
    per_sample = 48 + math.ceil(1.5 * long_text / 3)
    return min(64 + samples_asked(template, settings, batch_size) * per_sample, reply_limit(settings))


def reply_limit(settings: TeacherSettings) -> int:
    """Most tokens that a reply may take without a limit of the user's own."""
    return min(MAX_REPLY_TOKENS, settings.context_tokens // 2) if settings.sets_context else MAX_REPLY_TOKENS
