"""`VerifyingScreener`: the teacher labels its own samples; what it does not recognise is rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgkd_agent.errors import BudgetExceededError
from pgkd_agent.loop.guardrails import Rejected, Screened
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.protocols import Screener
from pgkd_agent.teacher.zero_shot import ZeroShotAnswer, ZeroShotClassifier
from pgkd_agent.types import GeneratedSample, TokenUsage

RULE = "verification"


class VerifyingScreener:
    """Asks about the written texts that another screener lets through, since every question costs a call.

    Args:
        classifier_of: The classifier for the samples of a KD step.
    """

    def __init__(self, screener: Screener, classifier_of: Callable[[int], ZeroShotClassifier]) -> None:
        self._screener = screener
        self._classifier_of = classifier_of

    def screen(
        self, samples: Sequence[GeneratedSample], history: History, shown_texts: frozenset[str], kd_step: int
    ) -> Screened:
        """As the other screener, and the teacher agrees with every label.

        Raises:
            TeacherUnavailableError: The provider failed for good.
        """
        screened = self._screener.screen(samples, history, shown_texts, kd_step)
        texts = {number: item.text for number, item in enumerate(screened.accepted) if item.source == "written"}
        answers: dict[int, ZeroShotAnswer] = {}
        stopped_by = ""
        try:
            for number, answer in self._classifier_of(kd_step).classify(texts, kd_step):
                answers[number] = answer
        except BudgetExceededError as error:
            stopped_by = str(error)
        accepted: list[HistoryRow] = []
        rejected = list(screened.rejected)
        written = {(sample.text.strip(), sample.request_index): sample.label for sample in samples}
        for number, item in enumerate(screened.accepted):
            reason = _objection(item, answers.get(number)) if number in texts else ""
            if reason:
                rejected.append(
                    Rejected(item.text, written[item.text, item.request_index], item.request_index, RULE, reason)
                )
            else:
                accepted.append(item)
        usage = sum((answer.reply.usage for answer in answers.values()), TokenUsage())
        return Screened(tuple(accepted), tuple(rejected), len(answers), usage, stopped_by)


def _objection(item: HistoryRow, answer: ZeroShotAnswer | None) -> str:
    if answer is None:
        return "not verified: the budget was used up"
    if answer.label is None:
        return "the teacher names no single label for it"
    return "" if answer.label == item.label else f"the teacher itself labels it {answer.label!r}"
