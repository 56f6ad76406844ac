"""A method as one record, and the table of those that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgkd_agent.config import PGKDConfig, explain, setting_keys
from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.methods.setting import Outcome, Setting
from pgkd_agent.teacher.prompting.templates import PromptTemplate

ALWAYS_READ = {"seed", "data"}
HOW_ASKED = {"batch", "cache", "prices", "timeout", "max_concurrency", "requests_per_minute"}
"""Settings of a teacher that do not change what it is asked."""

TEACHER = ("teacher", "zero_shot", "budget")
"""Sections that methods read which ask an LLM."""
HARD_LABELS = ("student.soft_labels",)
"""What methods ignore that train on labels as they are (`new_student`)."""


class Options(BaseModel):
    """What a method takes beside the settings; by itself, nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Count = Annotated[int, Field(ge=1, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]

OptionsT = TypeVar("OptionsT", bound=Options)
Repeated = Literal["counts", "samples"]
"""Of what another method accepted: how many of each class in each KD step, or the samples themselves."""


@dataclass(frozen=True)
class Method(Generic[OptionsT]):
    """What comparisons know of a method, once `register_method` was told of it.

    Attributes:
        run: Trains, or asks, and evaluates on the test rows.
        options: Checks what files of comparisons give as `options`.
        reads: Sections of the settings that the outcome depends on, beside `seed` and `data`: other values in them make
            another cell.
        ignores: Keys in these that it does not depend on, as `student.soft_labels`.
        prompts: The templates that it asks an LLM with, of these settings; None where it asks none.
        llm_predicts: The LLM is the classifier: it is asked each time, for its latency, and shares no replies.
        repeats: What it takes of the cell that an entry names as `of`: `counts` come as `Setting.accepted`, `samples`
            as `Setting.pool`.
        gives: What others may repeat of it; `samples` lie in a run directory `run` in its folder.
        all_rows: It takes all labelled rows, whatever `data.rows` says.
        labels_texts: It has texts to label: `unlabelled.jsonl` of the dataset, or else the training rows that
            `data.rows` leaves out, without their labels.
    """

    name: str
    run: Callable[[Setting, OptionsT], Outcome]
    options: type[OptionsT]
    reads: tuple[str, ...]
    _: KW_ONLY
    ignores: tuple[str, ...] = ()
    prompts: Callable[[PGKDConfig], Iterable[PromptTemplate]] | None = None
    llm_predicts: bool = False
    repeats: Repeated | None = None
    gives: tuple[Repeated, ...] = ()
    all_rows: bool = False
    labels_texts: bool = False

    @property
    def asks_llm(self) -> bool:
        return self.prompts is not None

    def checked(self, options: Mapping[str, Any]) -> OptionsT:
        """
        Raises:
            ConfigError: It has no such option, or another value is expected.
        """
        try:
            return self.options.model_validate(dict(options))
        except ValidationError as error:
            raise ConfigError(f"options of method {self.name!r}: {explain(error, self.options)}") from error

    def settings_read(self, config: PGKDConfig) -> dict[str, Any]:
        """Those that matter to it; where rows and replies lie, and how fast it goes, does to none."""
        left_out = {"data": {"data_dir"}, "teacher": set(HOW_ASKED)}
        for key in self.ignores:
            section, _, name = key.partition(".")
            left_out.setdefault(section, set()).add(name)
        return config.model_dump(mode="json", include=ALWAYS_READ.union(self.reads), exclude=left_out)

    def prompt_hash(self, config: PGKDConfig) -> str | None:
        """Of the prompts that it asks its LLM with; None where it asks none.

        Raises:
            PromptError: See `load_prompt`.
        """
        return "+".join(template.hash for template in self.prompts(config)) if self.prompts else None


METHODS: dict[str, Method[Any]] = {}
"""By name; `register_method` adds to them."""


def register_method(method: Method[Any]) -> None:
    """Make a method one that comparisons know by its name; of two of the same name the later one holds.

    Raises:
        ConfigError: It reads a section, or ignores a key, that the settings do not have.
    """
    if unknown := set(method.reads) - PGKDConfig.model_fields.keys():
        known = ", ".join(PGKDConfig.model_fields)
        raise ConfigError(f"method {method.name!r} reads {min(unknown)!r}; sections of the settings are {known}")
    if unknown := set(method.ignores) - {*setting_keys(PGKDConfig)}:
        raise ConfigError(f"method {method.name!r} ignores {min(unknown)!r}, which is no setting")
    METHODS[method.name] = method


def method_named(name: str) -> Method[Any]:
    """
    Raises:
        ConfigError: There is none.
    """
    if name not in METHODS:
        close = get_close_matches(name, METHODS, n=1)
        hint = f" (closest: {close[0]!r})" if close else ""
        raise ConfigError(f"no method {name!r}{hint}; there are {', '.join(METHODS)}")
    return METHODS[name]
