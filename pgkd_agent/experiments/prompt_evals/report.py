"""The results of a suite as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgkd_agent.experiments.compare import ComparisonFile, Grid, lines
from pgkd_agent.experiments.compare.markdown import NOT_MEASURED, cost_text, score_text, table
from pgkd_agent.experiments.compare.tables import HEADINGS
from pgkd_agent.experiments.prompt_evals.results import PromptResult
from pgkd_agent.experiments.prompt_evals.suite import REFERENCES, PromptSuite, shown_name
from pgkd_agent.metrics.intervals import METRICS, Difference, Spread

SAMPLES = ("asked", "valid", "accepted", "rejected", "repeats", "novelty", "evenness", "aim", "agreement")
TEACHING = ("", "calls", "readable", *SAMPLES, "tokens in / out", "cost", "s a call")


def to_markdown(suite: PromptSuite, plan: ComparisonFile, grid: Grid, results: Sequence[PromptResult]) -> str:
    """Two tables a dataset: the teacher's work, and its students."""
    measured = lines(plan, grid)
    parts = [suite.about] if suite.about else []
    parts.append(
        "Each variant wrote in one run of PGKD; students of seeds "
        f"{', '.join(map(str, plan.seeds))} trained on what was accepted of it. Their figures are of test rows, mean ± "
        "standard deviation; in brackets what they have over the plain student, with the 95 % interval of a bootstrap "
        "over seeds and test rows."
    )
    for dataset in plan.datasets:
        here = [result for result in results if result.dataset == dataset]
        students = [
            [REFERENCES[line.entry], *_scores(line.metrics, line.differences)]
            for line in measured
            if line.dataset == dataset and line.entry in REFERENCES
        ]
        students += [[name_of(result), *_scores(result.students, result.differences)] for result in here]
        parts += [f"### {dataset}", table(TEACHING, [_teaching(result) for result in here])]
        parts.append(table(["", *HEADINGS.values()], students))
    notes = [f"* {result.dataset}, {name_of(result)}, {why}" for result in results for why in result.failures]
    others = {cell: why for cell, why in grid.failures.items() if {*REFERENCES, "tuning"} & set(cell.split(", "))}
    notes += [f"* {cell}: {why}" for cell, why in others.items()]
    if notes:
        parts.append("Not measured:\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def name_of(result: PromptResult) -> str:
    return shown_name(result.variant, result.teacher)


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
        "not known" if done.input_tokens is None else f"{done.input_tokens:,} / {done.output_tokens:,}",
        cost_text(done.cost),
        _number(done.seconds / done.requests if done.requests else None, ".1f"),
    ]


def _scores(metrics: Mapping[str, Spread], differences: Mapping[str, Difference]) -> list[str]:
    return [score_text(metrics[name], differences.get(name)) if name in metrics else NOT_MEASURED for name in METRICS]


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, ".0f") + ("" if value is None else " %")


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)
