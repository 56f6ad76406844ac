"""Prompt variants against each other: what the teacher writes, and what students make of it on held-out rows."""

from pgkd_agent.experiments.prompt_evals.gate import losses_against, read_baseline
from pgkd_agent.experiments.prompt_evals.labelling import (
    LabellingResult,
    evaluate_labelling,
    labelling_to_json,
    labelling_to_markdown,
)
from pgkd_agent.experiments.prompt_evals.report import to_markdown
from pgkd_agent.experiments.prompt_evals.results import PromptResult, evaluate_prompts, to_json
from pgkd_agent.experiments.prompt_evals.suite import PromptSuite, part_of, read_suite, to_comparison

__all__ = [
    "LabellingResult",
    "PromptResult",
    "PromptSuite",
    "evaluate_labelling",
    "evaluate_prompts",
    "labelling_to_json",
    "labelling_to_markdown",
    "losses_against",
    "part_of",
    "read_baseline",
    "read_suite",
    "to_comparison",
    "to_json",
    "to_markdown",
]
