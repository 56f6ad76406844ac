"""Groups of options: dataclasses that commands take as one parameter each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import field, fields
from difflib import get_close_matches
from functools import wraps
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand

from pgkd_agent.config import CLOSE, PGKDConfig, setting_keys
from pgkd_agent.errors import ConfigError

ARGUMENTS = (
    "train", "labels", "out", "data", "baseline", "format", "engine", "min_agreement", "public", "machine_usd_per_hour",
    "gpu_usd_per_hour", "unlabelled",
)  # fmt: skip
"""Arguments of the library that messages name, and that are options of the same name."""


def option(help: str, *names: str, key: str | None = None, default: Any = None, **more: Any) -> Any:
    """A field of a group.

    Args:
        names: As people write it; none take the field's name.
        key: Dotted key of the setting that it gives.
        more: Passed on to `typer.Option`.
    """
    return field(default=default, metadata={"option": typer.Option(default, *names, help=help, **more), "key": key})


class Command(TyperCommand):
    """Of an unknown option it suggests only what is really close, or the setting of this name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # of the click that typer has, which may be its own
            if hasattr(error, "possibilities"):
                error.possibilities = self._meant(error.option_name.lstrip("-"))  # type: ignore[attr-defined]
            raise

    def _meant(self, name: str) -> list[str]:
        options = {option.lstrip("-"): option for parameter in self.params for option in parameter.opts}
        if close := get_close_matches(name, options, n=1, cutoff=CLOSE):
            return [options[close[0]]]
        keys = {key.rpartition(".")[2].replace("_", "-"): key for key in setting_keys(PGKDConfig)}
        return [f"--set {keys[name]}=VALUE"] if "set" in options and name in keys else []


class Group:
    """A group of options, a dataclass of `option` fields; commands marked with `grouped` take it as one parameter."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the options in a command's groups one by one; they may not have names in common.

    The groups are parameters by keyword only, so that they stand where their options are to be listed.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups = {name: p.annotation for name, p in parameters.items() if _is_group(p.annotation)}

    @wraps(command)
    def with_options(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    shown = [each for name, p in parameters.items() for each in (_parameters(groups[name]) if name in groups else [p])]
    with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in shown}
    return with_options


def options_of(group: type[Group]) -> dict[str, str]:
    """Option as people write it, such as `--max-calls`, by the dotted key of its setting; those that have one."""
    return {
        each.metadata["key"]: (each.metadata["option"].param_decls or [f"--{each.name.replace('_', '-')}"])[0]
        for each in fields(group)  # type: ignore[arg-type]
        if each.metadata["key"]
    }


def as_options(message: str) -> str:
    """A message of the library in the words of the command line.

    There a setting stands by its key and an argument by its name, between backquotes: `student.learning_rate=1e-5`,
    `out`. Here it becomes the option that gives it, else an assignment for --set.
    """
    options = {name: f"--{name.replace('_', '-')}" for name in ARGUMENTS} | {"teacher.base_url": "--base-url"}
    for group in _subclasses(Group):
        options |= options_of(group)

    def option(found: re.Match[str]) -> str:
        key, value = found[1], found[2]
        if key not in options:
            return found[0] if "." not in key else f"--set {key}={value}" if value else key
        return options[key] if value in (None, "True") else f"{options[key]} {value}"

    return re.sub(r"`([a-z]\w*(?:\.\w+)*)(?:=([^`]*))?`", option, message)


def _subclasses(group: type[Group]) -> Iterator[type[Group]]:
    for each in group.__subclasses__():
        yield each
        yield from _subclasses(each)


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Group)


def _parameters(group: Any) -> list[inspect.Parameter]:
    types, kind = get_type_hints(group), inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(each.name, kind, default=each.metadata["option"], annotation=types[each.name])
        for each in fields(group)
    ]


def refuse(context: typer.Context, message: str, *refused: str | type[Group]) -> None:
    """
    Args:
        message: Of the error, with `{given}` where the options that were given stand.
        refused: Parameters of the command that it would leave unread, by name or group.
    Raises:
        ConfigError: One of them is on the command line, be it with its default.
    """
    names = {name for each in refused for name in ([each] if isinstance(each, str) else get_type_hints(each))}
    found = [each for each in context.command.params if each.name in names and _is_given(context, each.name)]
    if found:
        raise ConfigError(message.format(given=", ".join(sorted(each.opts[0] for each in found))))


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is None or source.name != "DEFAULT"
