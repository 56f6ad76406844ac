"""Find the mistakes in a prompt template before a run meets them."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes

from pgkd_agent.errors import PromptError
from pgkd_agent.teacher.prompting.attributes import draw_attributes
from pgkd_agent.teacher.prompting.templates import VARIABLES, PromptTemplate, Purpose, load_prompt, read_prompt

REQUIRED: dict[Purpose, tuple[tuple[str, ...], ...]] = {
    "pgkd": (("num_samples",), ("taxonomy", "target")),
    "zero_shot": (("text",), ("taxonomy",)),
    "annotate": (("text",), ("candidates", "taxonomy"), ("other",)),
}
"""Of each group a template has to use one variable at least."""

_SHOT = {"text": "The lamp stays dark.", "label": "broken"}
_ROW = {**_SHOT, "predicted_label": "delivery"}
_FULL: dict[str, Any] = {
    "taxonomy": [{"name": "broken", "description": "a device fails"}, {"name": "delivery", "description": ""}],
    "candidates": [{"name": "delivery", "description": ""}],
    "task_description": "Messages to a shop.",
    "num_samples": 2,
    "few_shot": [_SHOT],
    "classification_report": "class  f1-score\nbroken  0.50",
    "correct": [{**_ROW, "predicted_label": "broken"}],
    "misclassified": [_ROW],
    "hard_negatives": [_ROW],
    "confusions": [
        {"label": "broken", "predicted_label": "delivery", "count": 2},
        {"label": "delivery", "predicted_label": "broken", "count": 1},
    ],
    "target": {"name": "broken", "description": "a device fails"},
    "rival": {"name": "delivery", "description": ""},
    "text": "Where is my parcel?",
    "other": "none of these",
}
_EMPTY: dict[str, Any] = {
    **_FULL,
    "few_shot": [],
    "correct": [],
    "misclassified": [],
    "hard_negatives": [],
    "confusions": [],
    "task_description": "",
    "target": {"name": "broken", "description": ""},
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found in a template; not every finding is an error."""

    message: str
    is_error: bool = True


def lint_prompt(variant: str, purpose: Purpose = "pgkd", folder: Path | None = None) -> list[Finding]:
    """Check a template, found as `load_prompt` finds it, by reading and by rendering it with made-up values.

    A template is rendered only where all its variables exist; it is rendered with rows and without any.

    Returns:
        Errors, then at most one remark on the variables that it leaves out.
    """
    try:
        template = read_prompt(variant, purpose, folder)
    except PromptError as error:
        return [Finding(str(error))]
    try:
        unknown = list(_unknown(template))
    except PromptError as error:  # a syntax error, a filter that does not exist, or more than Jinja can compile
        return [Finding(_without_name(error, template))]
    findings = [*unknown, *_missing(template)]
    if not unknown:
        findings += _rendered(variant, template, folder)
    unused = [name for name in VARIABLES[purpose] if name not in template.used]
    if unused:
        findings.append(Finding(f"does not use {', '.join(unused)}", is_error=False))
    return findings


def _unknown(template: PromptTemplate) -> Iterator[Finding]:
    known = VARIABLES[template.purpose]
    unknown = template.used - known.keys()
    nodes = [node for node in template.parse().find_all(jinja2.nodes.Name) if node.name in unknown]
    lines: dict[str, int] = {}
    for node in nodes:
        lines[node.name] = min(node.lineno, lines.get(node.name, node.lineno))
    set_somewhere = {node.name for node in nodes if node.ctx != "load"}
    for name, line in sorted(lines.items(), key=lambda found: found[1]):
        closest = difflib.get_close_matches(name, known, n=1)
        hint = f"closest: {closest[0]!r}" if closest else f"there are: {', '.join(known)}"
        if name in set_somewhere:
            yield Finding(f"line {line} sets {name!r} for a loop or block, but it is used outside of that too")
        else:
            yield Finding(f"line {line}: unknown variable {name!r} ({hint})")


def _missing(template: PromptTemplate) -> Iterator[Finding]:
    for group in REQUIRED[template.purpose]:
        if not template.used & set(group):
            yield Finding(f"uses no {' and no '.join(group)}, but needs {'it' if len(group) == 1 else 'one of them'}")
    if "rival" in template.used and "target" not in template.used:
        yield Finding("uses rival without target, but a request is about both")


def _rendered(variant: str, template: PromptTemplate, folder: Path | None) -> Iterator[Finding]:
    try:
        attributes = load_prompt(variant, template.purpose, folder).attributes
    except PromptError as error:
        yield Finding(str(error))
        return
    drawn = draw_attributes(attributes, _FULL["num_samples"], random.Random(0))
    full = _mistake(template, {**_FULL, "attributes": drawn})
    empty = _mistake(template, {**_EMPTY, "attributes": drawn})
    if full:
        yield Finding(full)
    if empty and empty != full:
        yield Finding(f"without rows: {empty}")


def _without_name(error: PromptError, template: PromptTemplate) -> str:
    return str(error).removeprefix(f"prompt {template.name!r}").lstrip(",: ")


def _mistake(template: PromptTemplate, values: Mapping[str, Any]) -> str | None:
    try:
        messages = template.render(values)
    except PromptError as error:
        return _without_name(error, template)
    if all(message.role != "human" for message in messages):
        return "has no text under Human:, without which most providers refuse a prompt"
    return None
