"""Open the teacher of a run: from settings, a LangChain chat model, or an object of the caller's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import EnsembleMember, PGKDConfig, TeacherSettings, ZeroShotSettings, provider_of
from pgkd_agent.data import Task
from pgkd_agent.errors import ConfigError
from pgkd_agent.loop.observer import Observer
from pgkd_agent.loop.protocols import Screener, Teacher
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.prompting.templates import PromptTemplate, load_prompt
from pgkd_agent.types import Example, Label

if TYPE_CHECKING:
    from pgkd_agent.teacher.calls.calling import Caller
    from pgkd_agent.teacher.prompting.requests import PromptRequest
    from pgkd_agent.teacher.providers.provider import ChatTeacher
    from pgkd_agent.teacher.zero_shot import ZeroShotClassifier

MAX_REPLY_TOKENS = 4096
"""What even older hosted models write; a longer reply is cut off, and its whole samples are kept."""

ZERO_SHOT_CONCURRENCY = 8
"""Zero-shot calls under way at once to a teacher that is not local."""


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
        ConfigError: An agent with a prompt of many requests a step: it is asked once, and looks up the rest.
    """
    template = load_prompt(prompt_variant(settings), folder=settings.prompt_folder)
    if settings.mode == "agent" and template.is_per_class:
        raise ConfigError(
            f"teacher.mode agent needs a prompt over all classes, and {template.name!r} is about one at a time; leave "
            "out --prompt, or take --prompt agent"
        )
    return template


@contextmanager
def open_teacher(
    given: Any,
    template: PromptTemplate,
    task: Task,
    config: PGKDConfig,
    screener: Screener,
    budget: Budget,
    log: Path | None = None,
    observer: Observer | None = None,
    replayed_steps: int = 0,
) -> Iterator[OpenTeacher]:
    """Build the teachers of the settings, or one around what is given, and close them in the end.

    Args:
        given: A LangChain chat model, or an object with `write`; None takes the settings.
        log: File for all calls; None keeps them for the time of the run.
        replayed_steps: Steps that are stored; their calls are taken from the log, and never sent.
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
        yield OpenTeacher(given, screener, name=getattr(given, "model_id", type(given).__name__))
        return

    from pgkd_agent.teacher.calls.call_log import CallLog
    from pgkd_agent.teacher.calls.calling import Caller
    from pgkd_agent.teacher.chain import ChainTeacher
    from pgkd_agent.teacher.ensemble import EnsembleTeacher
    from pgkd_agent.teacher.verification import VerifyingScreener

    with ExitStack() as stack:
        calls = CallLog(log or ":memory:")
        stack.callback(calls.close)
        callers = []
        budget.count(calls.charged())
        for settings in members(config.teacher) if given is None else [config.teacher]:
            chat = _chat(given, settings, template, task, config)
            stack.callback(chat.close)
            caller = Caller(chat, settings, config.seed, calls, budget, replayed_steps)
            stack.callback(caller.close)
            callers.append(caller)
        teachers = [_teacher(caller, template, config, observer or Observer()) for caller in callers]
        weights = [config.teacher.weight, *(member.weight for member in config.teacher.ensemble)]
        ensemble = EnsembleTeacher(teachers, weights[: len(teachers)], config.teacher.turns, config.seed)
        if config.guardrails.verify:
            classifiers = [labelling(caller, task, config) for caller in callers]
            screener = VerifyingScreener(
                screener,
                lambda kd_step: classifiers[ensemble.turn(kd_step)],
                zero_shot_concurrency(config.zero_shot, members(config.teacher)),
            )
        models = tuple(caller.chat.model_id for caller in callers)
        yield OpenTeacher(
            ensemble if len(teachers) > 1 else teachers[0],
            screener,
            models,
            name=", ".join(models),
            require_room=lambda request: ChainTeacher(callers[0], template, config).require_room(request),
            check=lambda: _check(callers),
        )


def members(settings: TeacherSettings) -> list[TeacherSettings]:
    """The settings of each teacher of an ensemble; of a single one, its own."""
    return [settings, *(_member(member, settings) for member in settings.ensemble)]


def _member(member: EnsembleMember, first: TeacherSettings) -> TeacherSettings:
    """A server holds for all teachers of its provider: without it they would go to the provider itself."""
    is_alike = provider_of(member.spec) == provider_of(first.spec)
    base_url = member.base_url or (first.base_url if is_alike else None)
    return first.model_copy(update={"spec": member.spec, "base_url": base_url})


def zero_shot_concurrency(settings: ZeroShotSettings, teachers: Sequence[TeacherSettings]) -> int:
    """Calls under way at once to these teachers."""
    is_local = any(teacher.is_local for teacher in teachers)
    return settings.max_concurrency or (1 if is_local else ZERO_SHOT_CONCURRENCY)


def _chat(
    given: Any, settings: TeacherSettings, template: PromptTemplate, task: Task, config: PGKDConfig
) -> ChatTeacher:
    from pgkd_agent.teacher.providers.factory import around, build_teacher

    if given is not None:
        return around(given)
    own = config.model_copy(update={"teacher": settings})
    return build_teacher(settings, reply_tokens(template, task, own))


def _check(callers: Sequence[Caller]) -> None:
    for caller in callers:
        caller.check()


def _teacher(caller: Caller, template: PromptTemplate, config: PGKDConfig, observer: Observer) -> Teacher:
    from pgkd_agent.teacher.chain import ChainTeacher

    if config.teacher.mode == "chain":
        return ChainTeacher(caller, template, config, observer.on_request, observer.on_plan)

    from pgkd_agent.teacher.agent import AgentTeacher
    from pgkd_agent.teacher.tools import teacher_tools

    plain_template = teacher_prompt(config.teacher.model_copy(update={"mode": "chain", "prompt": None}))
    return AgentTeacher(
        caller,
        template,
        config,
        lambda request: teacher_tools(request, config.teacher.max_text_chars),
        ChainTeacher(caller, plain_template, config, observer.on_request),
        observer.on_transcript,
    )


@contextmanager
def open_caller(
    given: Any,
    config: PGKDConfig,
    max_tokens: int,
    budget: Budget,
    log: Path,
    one_server: bool = True,
    stops_at_failure: bool = True,
) -> Iterator[Caller]:
    """The way to the first teacher of the settings, or to the chat model that is given, for questions of one's own.

    Args:
        max_tokens: Longest reply.
        log: File for all calls; what is in it is not asked again.
        one_server, stops_at_failure: See `Caller`.
    Raises:
        ConfigError, TeacherUnavailableError: See `build_teacher`.
    """
    from pgkd_agent.teacher.calls.call_log import CallLog
    from pgkd_agent.teacher.calls.calling import Caller
    from pgkd_agent.teacher.providers.factory import around, build_teacher

    with ExitStack() as stack:
        calls = CallLog(log)
        stack.callback(calls.close)
        budget.count(calls.charged())
        chat = around(given) if given is not None else build_teacher(config.teacher, max_tokens)
        stack.callback(chat.close)
        caller = Caller(
            chat,
            config.teacher,
            config.seed,
            calls,
            budget,
            one_server=one_server,
            stops_at_failure=stops_at_failure,
        )
        stack.callback(caller.close)
        yield caller


@contextmanager
def open_zero_shot(
    given: Any,
    taxonomy: Sequence[Label],
    config: PGKDConfig,
    budget: Budget,
    log: Path,
    few_shot: Sequence[Example] = (),
    stops_at_failure: bool = True,
) -> Iterator[ZeroShotClassifier]:
    """The first teacher of the settings as a classifier, with prompt, temperature and longest reply of `zero_shot`.

    Args:
        given, log, stops_at_failure: See `open_caller`.
        few_shot: Labelled rows for the prompt.
    Raises:
        PromptError: See `load_prompt`.
        ConfigError, TeacherUnavailableError: See `build_teacher`.
    """
    from pgkd_agent.teacher.zero_shot import ZeroShotClassifier

    settings = config.zero_shot
    template = load_prompt(settings.prompt, "zero_shot", config.teacher.prompt_folder)
    teacher = config.teacher.model_copy(update={"temperature": settings.temperature})
    asking = config.model_copy(update={"teacher": teacher})
    with open_caller(given, asking, settings.max_tokens, budget, log, False, stops_at_failure) as caller:
        yield ZeroShotClassifier(caller, template, taxonomy, config.data.task_description, config, few_shot)


def labelling(caller: Caller, task: Task, config: PGKDConfig) -> ZeroShotClassifier:
    """The same teacher, asked for the labels of texts."""
    from pgkd_agent.teacher.providers.factory import for_labels
    from pgkd_agent.teacher.zero_shot import ZeroShotClassifier

    chat = for_labels(caller.chat, config.zero_shot)
    template = load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder)
    return ZeroShotClassifier(caller.with_model(chat), template, task.taxonomy, task.description, config)


def reply_tokens(template: PromptTemplate, task: Task, config: PGKDConfig) -> int:
    """Room for the samples of one request: half again as long as the longest 5 % of training texts.

    Three characters a token is a cautious average for English; 48 tokens go to label and JSON, whose white space
    small models are generous with.
    """
    settings = config.teacher
    if settings.max_tokens is not None:
        return settings.max_tokens
    lengths = sorted(len(row.text) for row in task.train)
    long_text = lengths[int(0.95 * (len(lengths) - 1))]
    per_sample = 48 + math.ceil(1.5 * long_text / 3)
    samples = settings.samples_per_request if template.is_per_class else config.pgkd.pgkd_batch_size
    limit = min(MAX_REPLY_TOKENS, settings.context_tokens // 2) if settings.sets_context else MAX_REPLY_TOKENS
    return min(64 + samples * per_sample, limit)
