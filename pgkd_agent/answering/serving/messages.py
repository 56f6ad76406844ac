"""What requests hold and what they are answered with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

from pgkd_agent.text import shorten, well_formed

Text = Annotated[str, BeforeValidator(lambda given: well_formed(given) if isinstance(given, str) else given)]
"""With a replacement character for half of a surrogate pair, as texts from files and in Python."""


class ClassifyRequest(BaseModel):
    """One text, or several."""

    model_config = ConfigDict(extra="forbid")

    text: Text = ""
    """A text; instead of `texts`."""
    texts: Annotated[list[Text], FailFast()] = []
    """Texts, answered in this order."""
    top: Annotated[int, Field(ge=1)] = 1
    """How many of the most probable labels to name for each text."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_else(cls, given: Any) -> Any:
        """One error, however many there are."""
        unknown = next((key for key in given if key not in cls.model_fields), None) if isinstance(given, dict) else None
        if unknown is not None:
            raise ValueError(f"there is no {shorten(str(unknown), 40)!r}; give {', '.join(cls.model_fields)}")
        return given

    @model_validator(mode="after")
    def _one_of_both(self) -> ClassifyRequest:
        if len({"text", "texts"} & self.model_fields_set) != 1:
            raise ValueError("give either 'text' or 'texts'")
        return self

    @property
    def all_texts(self) -> list[str]:
        return [self.text] if "text" in self.model_fields_set else self.texts


class LabelProbability(BaseModel):
    label: str
    probability: float


class ClassifiedText(BaseModel):
    """`label` is null where the confidence is below the server's `--min-confidence`."""

    label: str | None
    confidence: float
    """Probability of the most probable label."""
    top: list[LabelProbability]
    """The most probable labels, as many as were asked for."""


class ClassifyResponse(BaseModel):
    """One for each text, in order."""

    predictions: list[ClassifiedText]


class Health(BaseModel):
    status: str
    version: str


class Labels(BaseModel):
    labels: list[str]
