"""What Algorithm 1 needs of a student, a teacher and guardrails; nothing here imports torch or LangChain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgkd_agent.loop.guardrails import Screened
from pgkd_agent.loop.history import History
from pgkd_agent.types import (
    EvidenceItem,
    Example,
    FitResult,
    GeneratedSample,
    Probabilities,
    TeacherReply,
    TeacherRequest,
)


class Student(Protocol):
    """A classifier that can be refitted, and put back to an earlier state."""

    def reset(self) -> None:
        """Go back to the state before the first fit: nothing of earlier fits has a part in the next one."""
        ...

    def fit(self, rows: Sequence[Example], validation: Sequence[Example], kd_step: int) -> FitResult:
        """Train on `rows`, watch `validation`, end with the epoch of lowest validation loss.

        Args:
            kd_step: 0 makes the plain student, which may have a part in the fits of later steps.
        """
        ...

    def predict(self, texts: Sequence[str]) -> Probabilities:
        """Shape (n_texts, n_classes), in the order of the texts and of the taxonomy."""
        ...

    def snapshot(self) -> Any:
        """A copy of the weights that later fits do not touch."""
        ...

    def restore(self, snapshot: Any) -> None: ...


class Teacher(Protocol):
    """What writes samples: a LangChain chain, an agent, or an object of your own with `write`."""

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Write samples for one KD step.

        Raises:
            TeacherError: The provider failed, or nothing readable ever came back.
        """
        ...


class Screener(Protocol):
    def screen(
        self, samples: Sequence[GeneratedSample], history: History, shown_texts: frozenset[str], kd_step: int
    ) -> Screened:
        """Sort the samples of a KD step into those to train on and those not.

        Args:
            shown_texts: Texts that stood in the prompts.
        """
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One round with the teacher; `seconds` writing and screening took, `evidence_seconds` the scoring of rows."""

    request: TeacherRequest
    reply: TeacherReply
    screened: Screened
    seconds: float
    evidence_seconds: float

    @property
    def shown(self) -> list[EvidenceItem]:
        """Rows that stood in a prompt, whole or shortened, with what the student makes of them."""
        shown = self.reply.shown_texts
        beginnings = tuple(text.removesuffix("…") for text in shown if text.endswith("…"))
        return [
            item
            for item in self.request.scored
            if item.text in shown or (beginnings and item.text.startswith(beginnings))
        ]
