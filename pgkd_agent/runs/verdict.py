"""What a run came to, in words: which model was kept and why, and what to know before it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pgkd_agent.metrics.intervals import GainSupport
from pgkd_agent.text import counted
from pgkd_agent.types import ClassificationReport, Evaluation, StepRecord

BothModels = tuple[Evaluation, Evaluation]
"""Plain student and returned model on the test rows."""
NEARLY_ALL = 0.9
"""Share of all rows, and of those of other classes, that one class takes where classes are not told apart."""


def verdict(
    steps: Sequence[StepRecord], best_step: int, gain: GainSupport | None = None, test: BothModels | None = None
) -> str:
    """One sentence on which model was kept and why, how sure that is, and whether labels are better, not only the loss.

    Args:
        test: Without it labels are those of the validation rows.
    """
    plain, best = steps[0].validation, steps[best_step].validation
    if len(steps) == 1:
        return f"the plain student, validation loss {plain.loss:.4f}"
    if best_step > 0:
        kept = f"kept the model of KD step {best_step}: validation loss {best.loss:.4f}, plain student {plain.loss:.4f}"
        sure = "" if gain is None else f" ({_how_sure(gain)})"
        before, after, where = (*test, "test") if test else (plain, best, "validation")
        return kept + sure + _loss_alone(before, after, where)
    lowest = min(record.validation.loss for record in steps[1:])
    accepted = sum(record.accepted for record in steps)
    if (stopped_by := steps[-1].stopped_by) and not sum(record.parsed for record in steps):
        return f"kept the plain student (model 0): a cap ended the run before a sample was written ({stopped_by})"
    if accepted == 0:
        why = "passed the guardrails" if any(record.parsed for record in steps) else "could be had"
        return f"kept the plain student (model 0): not one sample of the teacher {why}"
    better = next((record for record in steps if _is_better(plain.report, record.validation.report)), None)
    return (
        f"kept the plain student (model 0): with {counted(accepted, 'sample')} of the teacher the validation loss "
        f"never fell below its {plain.loss:.4f} (lowest {lowest:.4f}); "
        + (
            f"labels alone were better in step {better.kd_step}: {_moves(plain, better.validation)}"
            if better
            else "this teacher did not help"
        )
    )


def _how_sure(gain: GainSupport) -> str:
    interval = f"{gain.mean:+.3f}, 95 % interval {gain.low:+.3f} to {gain.high:+.3f}"
    if gain.is_supported:
        return f"gain on rows that did not choose: {interval}"
    return f"which may be luck: gain on rows that did not choose {interval}"


def _loss_alone(before: Evaluation, after: Evaluation, where: str) -> str:
    """What a lower loss does not say: nothing where labels are better too."""
    if _is_better(before.report, after.report):
        return ""
    if (before.report, before.confusions) == (after.report, after.confusions):
        scores = f"accuracy stays {after.report.accuracy:.3f}, macro F1 {after.report.macro_f1:.3f}"
        return f"; lower loss, same labels: on the {where} rows {scores}"
    return f"; lower loss, but no better labels: on the {where} rows {_moves(before, after)}"


def _is_better(before: ClassificationReport, after: ClassificationReport) -> bool:
    """Accuracy or macro F1, in the digits that are shown."""
    return round(after.accuracy, 3) > round(before.accuracy, 3) or round(after.macro_f1, 3) > round(before.macro_f1, 3)


def _moves(before: Evaluation, after: Evaluation) -> str:
    old, new = before.report, after.report
    return f"accuracy {old.accuracy:.3f} to {new.accuracy:.3f}, macro F1 {old.macro_f1:.3f} to {new.macro_f1:.3f}"


def caution(validation: Evaluation, test: BothModels | None) -> str:
    """What to know before the returned model is used; else nothing.

    It is that the test rows disagree with the choice by validation loss, or that it puts all texts into one class.

    Args:
        validation: Of the returned model; looked at without test rows.
    """
    said = []
    if test and test[1].loss > test[0].loss:
        losses = f"loss {test[1].loss:.4f}, plain student {test[0].loss:.4f}"
        if _is_better(test[0].report, test[1].report):
            said.append(f"but on the test rows labels alone are better ({_moves(*test)}), not the {losses}")
        else:
            said.append(
                f"but on the test rows it is worse: {losses}; the gain on the validation rows does not carry over: "
                "take a stronger teacher, or more validation rows"
            )
    after, where = (test[1], "test") if test else (validation, "validation")
    return "; ".join((*said, *_one_class(after, where)))


def _one_class(evaluation: Evaluation, where: str) -> Iterator[str]:
    """A sentence where a class is predicted of nearly all rows, those of the other classes among them."""
    predicted = Counter({row.label: round(row.recall * row.support) for row in evaluation.report.classes})
    right = predicted.copy()
    for pair in evaluation.confusions:
        predicted[pair.predicted_label] += pair.count
    (label, taken), n_rows = predicted.most_common(1)[0], evaluation.report.n_rows
    others = n_rows - evaluation.report.of(label).support
    if others and taken >= NEARLY_ALL * n_rows and taken - right[label] >= NEARLY_ALL * others:
        of_all = f"all {counted(n_rows, f'{where} row')}" if taken == n_rows else f"{taken} of {n_rows} {where} rows"
        yield (
            f"{of_all} are predicted as {label!r}, also those of the other classes ({others}): this model "
            "does not tell classes apart; it needs more rows of the others, or longer training"
        )
