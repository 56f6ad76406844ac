"""The answer contract: what a reply of the teacher looks like, as records and as a JSON Schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_ENUM_VALUES = 250
"""OpenAI limits long enums (1,000 values, and 15,000 characters beyond 250); larger taxonomies get a free
string, which the guardrails check."""

NONE = "none of these"
"""What a teacher answers where no candidate fits."""
LABEL_TOKENS = 100
"""Longest reply that names a label in JSON."""
LABEL_TEMPERATURE = 0.0

CONTRACT_LINE = (
    'Answer with JSON only, in this form: {{"samples": [{{"text": "...", "label": "..."}}]}}. '
    "Write exactly {num_samples}, with each label spelled exactly as given above."
)
"""Stands at the end of a prompt whose provider takes no schema."""


class Sample(BaseModel):
    """One training sample."""

    model_config = ConfigDict(extra="ignore")

    text: str = Field(description="a new training text")
    label: str = Field(description="its label, exactly as in the taxonomy")


class Samples(BaseModel):
    """New training samples for the student."""

    samples: list[Sample]


def answer_schema(labels: Sequence[str], num_samples: int | None = None) -> dict[str, Any]:
    """JSON Schema of a reply.

    Args:
        labels: Allowed labels, as an enum where there are few enough.
        num_samples: Fix the number of samples; None where the provider does not take array bounds.
    """
    samples: dict[str, Any] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "label": _label(labels)},
            "required": ["text", "label"],
            "additionalProperties": False,
        },
    }
    if num_samples is not None:
        samples |= {"minItems": num_samples, "maxItems": num_samples}
    return {
        "type": "object",
        "properties": {"samples": samples},
        "required": ["samples"],
        "additionalProperties": False,
    }


def zero_shot_schema(labels: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of a zero-shot answer, with the first of the two keys that the paper's prompt names."""
    return {
        "type": "object",
        "properties": {"class_label": _label(labels)},
        "required": ["class_label"],
        "additionalProperties": False,
    }


def _label(labels: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(labels)} if len(labels) <= MAX_ENUM_VALUES else {"type": "string"}
