"""Methods against each other on the same rows, students and seeds."""

from pgkd_agent.experiments.compare.cells import source_and_config
from pgkd_agent.experiments.compare.grid import Grid, Progress, fill, read_task
from pgkd_agent.experiments.compare.plan import ComparisonFile, narrowed, read_comparison
from pgkd_agent.experiments.compare.records import Done
from pgkd_agent.experiments.compare.tables import Line, lines, to_csv, to_json, to_markdown

__all__ = [
    "ComparisonFile",
    "Done",
    "Grid",
    "Line",
    "Progress",
    "fill",
    "lines",
    "narrowed",
    "read_comparison",
    "read_task",
    "source_and_config",
    "to_csv",
    "to_json",
    "to_markdown",
]
