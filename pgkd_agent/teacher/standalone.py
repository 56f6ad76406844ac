"""The teacher without a run: as a LangChain chain that writes samples, or as a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import PromptError
from pgkd_agent.teacher.annotation import Annotator
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.models import open_models
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.chain import WrittenSamples, sample_chain
from pgkd_agent.teacher.opening import annotation_prompt, reply_limit, samples_asked, teacher_prompt
from pgkd_agent.teacher.prompting.answer import LABEL_TEMPERATURE, LABEL_TOKENS
from pgkd_agent.teacher.prompting.chat_prompt import ChatPrompt
from pgkd_agent.teacher.zero_shot import ZeroShotClassifier
from pgkd_agent.types import Example, Label


@contextmanager
def open_chain(
    labels: Sequence[str],
    config: PGKDConfig | None = None,
    model: BaseChatModel | None = None,
    calls: Path | None = None,
) -> Iterator[Runnable[dict[str, Any], WrittenSamples]]:
    """The teacher of the settings as a LangChain chain, prompt | chat model | parser, closed in the end.

    It takes the values of its prompt by name (`pgkd prompts render` shows them) and gives `WrittenSamples`. Retries,
    pace and the caps of `budget` are as in a run. Which call it is says the `metadata` of the RunnableConfig, for
    LangChain's callbacks too: `kd_step`, `request_index` and `attempt`, each 0 where it is not there. The same values
    asked with the same identity bring the same reply, from the log.

    Args:
        labels: What the samples may be labelled with.
        config: `teacher` (the first one, as a chain), `budget` and `seed` count; a request is for `num_samples` of the
            values; where that is not among them, for `pgkd.pgkd_batch_size`, or `teacher.samples_per_request` where
            the prompt is about one class. None takes the defaults.
        model: Instead of the one that the settings name.
        calls: SQLite file for all prompts and replies; what is in it is not asked again, and counts against the caps.
            None keeps none.

    Raises:
        PromptError: See `load_prompt`.
        StorageError: `calls` cannot be opened.
        ConfigError, TeacherUnavailableError: See `build_teacher`.
    """
    config = config or PGKDConfig()
    settings = config.teacher.changed({"mode": "chain", "ensemble": ()})
    template = teacher_prompt(settings)
    teachers = [(settings, settings.max_tokens or reply_limit(settings))]
    budget = Budget(config.budget, load_prices(settings.prices))
    with open_models(model, teachers, config.seed, budget, calls) as (gated,):
        usual = samples_asked(template, settings, config.pgkd.pgkd_batch_size)
        chain = RunnableLambda(partial(_with_number, usual)) | RunnableLambda(
            lambda values: ChatPrompt(template) | sample_chain(gated, labels, values["num_samples"])
        )
        yield chain.with_config(metadata={"prompt_hash": template.hash})


def _with_number(usual: int, values: dict[str, Any]) -> dict[str, Any]:
    """Prompt and schema ask for one number of samples: that of the values, where it is among them."""
    number = values.get("num_samples", usual)
    if not isinstance(number, int) or number < 1:
        raise PromptError(f"num_samples is {number!r}; expected a whole number of samples, at least 1")
    return {**values, "num_samples": number}


@contextmanager
def open_annotator(
    taxonomy: Sequence[Label],
    task_description: str,
    config: PGKDConfig,
    budget: Budget,
    log: Path,
    only_stored: bool = False,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Annotator]:
    """The first teacher of the settings as one that labels texts, checked.

    Args:
        log: See `open_models`.
        only_stored: Ask nothing; a call of step 0 that is not in the log raises StorageError.
        on_wait: Told how far a batch job is.
    Raises:
        PromptError: See `load_prompt`.
        ConfigError, TeacherUnavailableError: See `build_teacher` and `Caller.check`.
    """
    template = annotation_prompt(config.teacher)
    exact = config.teacher.changed({"temperature": LABEL_TEMPERATURE})
    teachers, stored_steps = [(exact, LABEL_TOKENS)], int(only_stored)
    with open_models(None, teachers, config.seed, budget, log, stored_steps, one_server=False, on_wait=on_wait) as (
        model,
    ):
        if not only_stored:
            model.caller.check()
        yield Annotator(model, template, taxonomy, task_description)


@contextmanager
def open_zero_shot(
    given: Any,
    taxonomy: Sequence[Label],
    config: PGKDConfig,
    budget: Budget,
    log: Path,
    few_shot: Sequence[Example] = (),
    stops_at_failure: bool = True,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[ZeroShotClassifier]:
    """The first teacher of the settings as a classifier, with the prompt of `zero_shot`.

    Args:
        given, log, stops_at_failure, on_wait: See `open_models`.
        few_shot: Labelled rows for the prompt.
    Raises:
        PromptError: See `load_prompt`.
        ConfigError, TeacherUnavailableError: See `build_teacher`.
    """
    exact = config.teacher.changed({"temperature": LABEL_TEMPERATURE})
    with open_models(
        given,
        [(exact, LABEL_TOKENS)],
        config.seed,
        budget,
        log,
        one_server=False,
        stops_at_failure=stops_at_failure,
        on_wait=on_wait,
    ) as (model,):
        yield ZeroShotClassifier(model, config.zero_shot, taxonomy, config.data.task_description, few_shot)
