"""Render prompt variants: strict Jinja templates that become chat messages.

A template is text in which a line `System:`, `Human:` or `Assistant:` starts a message. Roles are found
before anything is rendered, so no data can start one. A trailing empty `Assistant:` is where the
model's answer goes. A variant that uses the variable `target` is asked once per planned class, any other
once per KD step.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import jinja2.meta
import jinja2.sandbox

from pgkd_agent.errors import PromptError
from pgkd_agent.resources import resource_folder

Role = Literal["system", "human", "assistant"]
_ROLE_LINE = re.compile(r"^(System|Human|Assistant):[ \t]*$", re.MULTILINE)

Purpose = Literal["pgkd", "zero_shot"]
"""A folder of `prompts/`: what a variant is for."""

_COMMON = {
    "taxonomy": "list of {name, description}",
    "task_description": "what the texts are and what the labels mean; may be empty",
}
VARIABLES: dict[Purpose, dict[str, str]] = {
    "pgkd": {
        **_COMMON,
        "num_samples": "samples asked for by this request",
        "few_shot": "list of real training rows {text, label}",
        "classification_report": "the student's report on the validation rows, as text",
        "correct": "list of {text, label, predicted_label}",
        "misclassified": "list of {text, label, predicted_label}",
        "hard_negatives": "list of {text, label, predicted_label}, most confident first",
        "target": "the class asked about, {name, description}; makes the variant one request per class",
    },
    "zero_shot": {**_COMMON, "text": "the text to classify"},
}
"""What a template may use, with its meaning."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt variant, checked when it is loaded."""

    name: str
    source: str
    purpose: Purpose = "pgkd"

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names the template uses.

        Raises:
            PromptError: A syntax error, or a variable that does not exist.
        """
        try:
            used = frozenset(jinja2.meta.find_undeclared_variables(_environment().parse(self.source)))
        except jinja2.TemplateSyntaxError as error:
            raise PromptError(f"prompt {self.name!r}, line {error.lineno}: {error.message}") from error
        known = VARIABLES[self.purpose]
        unknown = sorted(used - known.keys())
        if unknown:
            raise PromptError(
                f"prompt {self.name!r} uses unknown variables: {', '.join(unknown)}; there are: {', '.join(known)}"
            )
        return used

    @property
    def is_per_class(self) -> bool:
        return "target" in self.variables

    def render(self, values: Mapping[str, Any]) -> list[Message]:
        """Render to messages; data inside is JSON, so its braces and line breaks stay data.

        Raises:
            PromptError: A value the template needs is missing, or no message comes out.
        """
        missing = sorted(self.variables - values.keys())
        if missing:
            raise PromptError(f"prompt {self.name!r} needs values for: {', '.join(missing)}")
        messages = []
        for role, part in self._parts():
            try:
                content = _environment().from_string(part).render(values).strip()
            except jinja2.TemplateError as error:
                raise PromptError(f"prompt {self.name!r}, {role} message: {error}") from error
            if content:
                messages.append(Message(role, content))
        if not messages:
            raise PromptError(f"prompt {self.name!r} renders to nothing")
        return messages

    def _parts(self) -> list[tuple[Role, str]]:
        head, *rest = _ROLE_LINE.split(self.source)
        parts: list[tuple[Role, str]] = [("human", head)]
        parts += [(_role(rest[i]), rest[i + 1]) for i in range(0, len(rest), 2)]
        return parts


def load_prompt(variant: str, purpose: Purpose = "pgkd") -> PromptTemplate:
    """Load a variant by name, or a template by path (anything with a slash or `.j2`).

    Raises:
        PromptError: There is no such variant or file, or it uses unknown variables.
    """
    is_path = variant.endswith(".j2") or "/" in variant or "\\" in variant
    path = Path(variant) if is_path else resource_folder("prompts") / purpose / f"{variant}.j2"
    if not path.is_file():
        variants = ", ".join(list_prompts(purpose))
        raise PromptError(f"no prompt {variant!r}; {purpose} variants: {variants}; or a path to a .j2 file")
    template = PromptTemplate(path.stem, path.read_text(encoding="utf-8"), purpose)
    _ = template.variables
    return template


def list_prompts(purpose: Purpose = "pgkd") -> list[str]:
    return sorted(path.stem for path in (resource_folder("prompts") / purpose).glob("*.j2"))


def _role(word: str) -> Role:
    roles: dict[str, Role] = {"System": "system", "Human": "human", "Assistant": "assistant"}
    return roles[word]


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=False,
    )
    # Jinja's own `tojson` escapes for HTML, which would change the texts.
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment
