"""Render prompt variants: strict Jinja templates that become chat messages.

A template is text in which a line `System:`, `Human:` or `Assistant:` starts a message. Roles are found
before anything is rendered, so no data can start one. A trailing empty `Assistant:` is where the
model's answer goes. A variant that uses the variable `target` is asked once per planned class, one that also
uses `rival` once per planned pair of classes, any other once per KD step.

A user's folder has the layout of `prompts/`; what is not in it is taken from the package.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from pgkd_agent.errors import PromptError
from pgkd_agent.files import resource_folder
from pgkd_agent.teacher.prompting.attributes import Attributes, load_attributes
from pgkd_agent.teacher.prompting.template_errors import blaming
from pgkd_agent.teacher.prompting.tokens import estimate_tokens
from pgkd_agent.types import Example, Label

Role = Literal["system", "human", "assistant"]
ATTRIBUTES_FILE = "attributes.yaml"
"""Lies beside the templates."""

_ROLE_LINE = re.compile(r"^(System|Human|Assistant):[ \t]*$", re.MULTILINE)

Purpose = Literal["pgkd", "zero_shot", "annotate"]
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
        "confusions": "list of {label, predicted_label, count} on the validation rows, most frequent first",
        "target": "the class asked about, {name, description}; makes the variant one request per class",
        "rival": "a class that is taken for target or the reverse, {name, description}; one request per pair",
        "attributes": "list of one mapping per sample asked for, from attribute to value; see attributes.yaml",
    },
    "zero_shot": {
        **_COMMON,
        "text": "the text to classify",
        "few_shot": "list of labelled rows {text, label}; empty where the teacher gets none",
    },
    "annotate": {
        **_COMMON,
        "candidates": "list of {name, description}: the classes that the student finds likely, likeliest first; a "
        "template that uses `taxonomy` beside or instead of it has the teacher choose among all classes",
        "other": "what to answer where no class fits",
        "text": "the text to label",
        "few_shot": "list of labelled rows {text, label} of the candidates that are like the text",
    },
}
"""What a template may use, with its meaning."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt variant, checked when it is loaded.

    Attributes:
        attributes: Values to draw from, for a template that uses the variable `attributes`.
    """

    name: str
    source: str
    purpose: Purpose = "pgkd"
    attributes: Attributes = field(default_factory=dict, hash=False)

    @property
    def hash(self) -> str:
        values = json.dumps(self.attributes) if self.attributes else ""
        return hashlib.sha256((self.source + values).encode()).hexdigest()

    @cached_property
    def used(self) -> frozenset[str]:
        """Names the template uses, also such as do not exist.

        Raises:
            PromptError: A syntax error, a filter or test that does not exist, or nothing that Jinja can compile.
        """
        with blaming(f"prompt {self.name!r}"):
            return frozenset(jinja2.meta.find_undeclared_variables(self.parse()))

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names the template uses.

        Raises:
            PromptError: A variable that does not exist; see `used` too.
        """
        used, known = self.used, VARIABLES[self.purpose]
        unknown = sorted(used - known.keys())
        if unknown:
            raise PromptError(
                f"prompt {self.name!r} uses unknown variables: {', '.join(unknown)}; there are: {', '.join(known)}"
            )
        return used

    @property
    def is_per_class(self) -> bool:
        """Whether a KD step makes several requests, each about a class or a pair of classes."""
        return bool(self.variables & {"target", "rival"})

    @property
    def is_pairwise(self) -> bool:
        return "rival" in self.variables

    def render(self, values: Mapping[str, Any]) -> list[Message]:
        """Render to messages; data inside is JSON, so its braces and line breaks stay data.

        Raises:
            PromptError: A value the template needs is missing, no message comes out, or the template raises anything.
        """
        missing = sorted(self.variables - values.keys())
        if missing:
            raise PromptError(f"prompt {self.name!r} needs values for: {', '.join(missing)}")
        own = copy.deepcopy(dict(values))  # a template may call `pop`, and a request is rendered more than once
        messages = []
        for role, part in self._parts():
            with blaming(f"prompt {self.name!r}, {role} message"):
                content = _environment().from_string(part).render(own).strip()
            if content:
                messages.append(Message(role, content))
        if not messages:
            raise PromptError(f"prompt {self.name!r} renders to nothing")
        return messages

    def parse(self) -> jinja2.nodes.Template:
        """
        Raises:
            PromptError: See `used`.
        """
        with blaming(f"prompt {self.name!r}"):
            return _environment().parse(self.source)

    def _parts(self) -> list[tuple[Role, str]]:
        """The messages' templates, each behind as many line breaks as make its line numbers those of the file."""
        parts: list[tuple[Role, str]] = []
        role: Role = "human"
        start = 0
        for match in _ROLE_LINE.finditer(self.source):
            parts.append((role, self._from(start, match.start())))
            role, start = _role(match[1]), match.end()
        return [*parts, (role, self._from(start, len(self.source)))]

    def _from(self, start: int, end: int) -> str:
        return "\n" * self.source.count("\n", 0, start) + self.source[start:end]


def load_prompt(variant: str, purpose: Purpose = "pgkd", folder: Path | None = None) -> PromptTemplate:
    """Load a variant by name, or a template by path (anything with a slash or `.j2`).

    Args:
        folder: A user's own folder, looked through before the package's. Its `attributes.yaml`, or one beside a
            template given by path, replaces the package's.
    Raises:
        PromptError: There is no such variant, file or folder, or it uses unknown variables.
    """
    template = read_prompt(variant, purpose, folder)
    if "attributes" not in template.variables:
        return template
    places = [Path(variant).parent] if is_path(variant) else []
    places += _places(purpose, folder)
    file = next(place / ATTRIBUTES_FILE for place in places if (place / ATTRIBUTES_FILE).is_file())
    return replace(template, attributes=load_attributes(file))


def read_prompt(variant: str, purpose: Purpose = "pgkd", folder: Path | None = None) -> PromptTemplate:
    """Like `load_prompt`, but without a check of what is in the template.

    Raises:
        PromptError: There is no such variant, file or folder, or it is no UTF-8.
    """
    places = _places(purpose, folder)
    paths = [Path(variant)] if is_path(variant) else [place / f"{variant}.j2" for place in places]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        variants = ", ".join(list_prompts(purpose, folder))
        looked = f" in {places[0]} or the package" if folder else ""
        raise PromptError(f"no prompt {variant!r}{looked}; {purpose} variants: {variants}; or a path to a .j2 file")
    try:
        return PromptTemplate(path.stem, path.read_text(encoding="utf-8"), purpose)
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompt {path} cannot be read: {error}; expected text in UTF-8") from error


def label_values(label: Label) -> dict[str, str]:
    """A class as templates get it."""
    return {"name": label.name, "description": label.description}


def zero_shot_values(
    labels: Sequence[Label], task_description: str, text: str, few_shot: Sequence[Example] = ()
) -> dict[str, Any]:
    """What a zero-shot template gets."""
    return {
        "taxonomy": list(map(label_values, labels)),
        "task_description": task_description,
        "text": text,
        "few_shot": [{"text": row.text, "label": row.label} for row in few_shot],
    }


def annotation_values(
    labels: Sequence[Label],
    candidates: Sequence[Label],
    task_description: str,
    text: str,
    few_shot: Sequence[Example],
    other: str,
) -> dict[str, Any]:
    """What an annotation template gets."""
    shared = zero_shot_values(labels, task_description, text, few_shot)
    return {**shared, "candidates": list(map(label_values, candidates)), "other": other}


def prompt_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a rendered prompt, estimated."""
    return estimate_tokens("\n".join(message.content for message in messages))


def list_prompts(purpose: Purpose = "pgkd", folder: Path | None = None) -> list[str]:
    """Names of all variants, those of a user's own folder among them.

    Raises:
        PromptError: There is no such folder, or no template where one is expected in it.
    """
    return sorted({path.stem for place in _places(purpose, folder) for path in place.glob("*.j2")})


def _places(purpose: Purpose, folder: Path | None) -> list[Path]:
    if folder is not None and not any((folder / name).is_dir() for name in VARIABLES):
        wanted = " or ".join(str(folder / name / "NAME.j2") for name in VARIABLES)
        raise PromptError(f"prompt folder {folder} holds no templates; expected them as {wanted}")
    roots = [resource_folder("prompts")] if folder is None else [folder, resource_folder("prompts")]
    return [root / purpose for root in roots]


def is_path(variant: str) -> bool:
    """Whether it names a template's file and not a variant."""
    return variant.endswith(".j2") or "/" in variant or "\\" in variant


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
    # `default=str` makes a misspelt field say its name instead of being "not serializable".
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False, default=str)
    return environment
