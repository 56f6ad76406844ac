"""The classification report: computed, formatted for a prompt or a person, never with texts in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pgkd_agent.types import (
    ClassificationReport,
    ClassMetrics,
    Confusion,
    Evaluation,
    Example,
    Label,
    Probabilities,
    label_names,
)

NO_DATA = "no data"


def evaluate(probabilities: Probabilities, rows: Sequence[Example], taxonomy: Sequence[Label]) -> Evaluation:
    """Evaluate predictions against gold labels (Algorithm 1, line 9).

    Args:
        probabilities: Shape (n_rows, n_classes), columns in the order of the taxonomy.
        rows: The rows predicted, at least one, labels within the taxonomy.
    """
    gold = class_ids(rows, taxonomy)
    predicted = probabilities.argmax(axis=1)
    return Evaluation(
        loss=float(row_losses(probabilities, rows, taxonomy).mean()),
        report=classification_report(gold, predicted, taxonomy),
        confusions=_confusions(gold, predicted, label_names(taxonomy)),
    )


def row_losses(probabilities: Probabilities, rows: Sequence[Example], taxonomy: Sequence[Label]) -> np.ndarray:
    """Cross-entropy of each row in nats, shape (n_rows,); arguments as for `evaluate`."""
    with np.errstate(divide="ignore"):
        losses: np.ndarray = -np.log(probabilities[np.arange(len(rows)), class_ids(rows, taxonomy)])
    return losses


def class_ids(rows: Sequence[Example], taxonomy: Sequence[Label]) -> np.ndarray:
    """Numbers of the rows' classes in the taxonomy, shape (n_rows,)."""
    index = {name: position for position, name in enumerate(label_names(taxonomy))}
    return np.array([index[row.label] for row in rows])


def report_without_rows(taxonomy: Sequence[Label]) -> ClassificationReport:
    """What is known before anything is evaluated: all classes are alike."""
    classes = tuple(ClassMetrics(name, 0.0, 0.0, 0.0, 0) for name in label_names(taxonomy))
    return ClassificationReport(classes, 0.0, 0.0, 0.0, 0.0, 0)


def classification_report(
    gold: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray, taxonomy: Sequence[Label]
) -> ClassificationReport:
    """Report per class over class ids; absent classes keep their row."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    precision, recall, f1, support = class_scores(gold, predicted, len(taxonomy))
    has_support = support > 0
    return ClassificationReport(
        classes=tuple(
            ClassMetrics(name, float(p), float(r), float(f), int(s))
            for name, p, r, f, s in zip(label_names(taxonomy), precision, recall, f1, support, strict=True)
        ),
        accuracy=float((gold == predicted).mean()),
        macro_f1=float(f1[has_support].mean()),
        macro_f1_all=float(f1.mean()),
        weighted_f1=float(np.average(f1, weights=support)),
        n_rows=len(gold),
    )


def class_scores(
    gold: np.ndarray, predicted: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall, F1 and support, each of shape (n_classes,); 0 where there is nothing to divide by.

    Args:
        predicted: Class ids; a negative one is wrong, and of no class.
    """
    support = np.bincount(gold, minlength=num_classes)
    named = np.bincount(predicted[predicted >= 0], minlength=num_classes)
    right = np.bincount(gold[gold == predicted], minlength=num_classes)
    f1 = 2 * right / np.maximum(support + named, 1)
    return right / np.maximum(named, 1), right / np.maximum(support, 1), f1, support


def _confusions(gold: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> tuple[Confusion, ...]:
    wrong = gold != predicted
    counts = Counter(zip(gold[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    frequent_first = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Confusion(names[g], names[p], count) for (g, p), count in frequent_first)


def format_report(
    report: ClassificationReport, *, worst: int | None = None, label: str | None = None, rival: str | None = None
) -> str:
    """Render the report as the text that prompts and the report tool show.

    Args:
        worst: Only the `worst` classes with the lowest F1, classes without validation rows left out.
        label: Only this class.
        rival: A second class to go with `label`.
    """
    rows = report.classes
    if label is not None:
        rows = tuple(report.of(name) for name in (label, rival) if name is not None)
    elif worst is not None:
        rows = tuple(sorted((row for row in rows if row.has_data), key=lambda row: row.f1)[:worst])
    width = max([len("class"), *(len(row.label) for row in rows)])
    lines = [f"{'class':<{width}}  precision  recall  f1-score  support"]
    lines += [f"{row.label:<{width}}  {format_metrics(row)}" for row in rows]
    if label is None:
        lines.append(
            f"accuracy {report.accuracy:.2f}, macro avg f1-score {report.macro_f1:.2f}, "
            f"weighted avg f1-score {report.weighted_f1:.2f} over {report.n_rows} rows"
        )
    return "\n".join(lines)


def format_metrics(row: ClassMetrics) -> str:
    if not row.has_data:
        return f"{NO_DATA:>9}  {NO_DATA:>6}  {NO_DATA:>8}  {0:>7}"
    return f"{row.precision:>9.2f}  {row.recall:>6.2f}  {row.f1:>8.2f}  {row.support:>7}"
