"""The results of a suite as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from pgkd_agent.compare import ComparisonFile, Grid, lines
from pgkd_agent.compare.markdown import cost_text, score_text, spread_text, table
from pgkd_agent.compare.statistics import METRICS
from pgkd_agent.compare.tables import HEADINGS
from pgkd_agent.prompt_evals.results import PromptResult
from pgkd_agent.prompt_evals.suite import PLAIN, PromptSuite

NOT_MEASURED = "-"
TEACHING = (
    "",
    "calls",
    "readable",
    "asked",
    "valid",
    "accepted",
    "rejected",
    "repeats",
    "novelty",
    "evenness",
    "aim",
    "agreement",
    "tokens in / out",
    "cost",
    "s a call",
)


def to_markdown(suite: PromptSuite, plan: ComparisonFile, grid: Grid, results: Sequence[PromptResult]) -> str:
    """Two tables a dataset: the teacher's work, and its students."""
    plain = {line.dataset: line.metrics for line in lines(plan, grid) if line.entry == PLAIN}
    parts = [suite.about] if suite.about else []
    parts.append(
        "Each variant wrote in one run of PGKD; students of seeds "
        f"{', '.join(map(str, plan.seeds))} trained on what was accepted of it. Their figures are of test rows, mean ± "
        "standard deviation; in brackets what they have over the plain student, with the 95 % interval of a bootstrap "
        "over seeds and test rows."
    )
    for dataset in plan.datasets:
        here = [result for result in results if result.dataset == dataset]
        students = [[name_of(result), *_students(result)] for result in here]
        if metrics := plain.get(dataset):
            students.insert(0, ["plain student", *(spread_text(metrics[name]) for name in METRICS)])
        parts += [f"### {dataset}", table(TEACHING, [_teaching(result) for result in here])]
        parts.append(table(["", *HEADINGS.values()], students))
    notes = [f"* {result.dataset}, {name_of(result)}, {why}" for result in results for why in result.failures]
    notes += [
        f"* {cell}: {why}" for cell, why in grid.failures.items() if PLAIN in cell.split(", ") or "tuning" in cell
    ]
    if notes:
        parts.append("Not measured:\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def name_of(result: PromptResult) -> str:
    return f"{result.variant}, {result.teacher}" if result.teacher else result.variant


def _teaching(result: PromptResult) -> list[str]:
    done = result.teaching
    if done is None:
        return [name_of(result), *[NOT_MEASURED] * (len(TEACHING) - 1)]
    rejected = ", ".join(f"{rule} {count}" for rule, count in sorted(done.rejected.items(), key=lambda item: -item[1]))
    return [
        name_of(result),
        str(done.requests),
        _percent(done.parse_rate),
        str(done.asked),
        str(done.valid),
        str(done.accepted),
        rejected or "none",
        _percent(done.repetition_rate),
        _number(done.novelty, ".2f"),
        _number(done.evenness, ".2f"),
        _number(done.aim, "+.2f"),
        _percent(result.agreement),
        f"{done.input_tokens:,} / {done.output_tokens:,}",
        cost_text(done.cost),
        _number(done.seconds / done.requests if done.requests else None, ".1f"),
    ]


def _students(result: PromptResult) -> list[str]:
    return [
        score_text(result.students[name], result.differences.get(name)) if name in result.students else NOT_MEASURED
        for name in METRICS
    ]


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, ".0f") + ("" if value is None else " %")


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)
