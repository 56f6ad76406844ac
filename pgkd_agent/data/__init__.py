"""Labelled rows in, a `Task` with disjoint train, validation and test rows out."""

from pgkd_agent.data.containers import Rows, with_splits
from pgkd_agent.data.formats import read_records
from pgkd_agent.data.presets import PRESETS, load_preset
from pgkd_agent.data.reading import Texts, read_examples, read_pool, read_texts, stream_rows, stream_texts
from pgkd_agent.data.task import Task, prepare_task
from pgkd_agent.data.taxonomy import Labels, Taxonomy, read_taxonomy, taxonomy_of

__all__ = [
    "PRESETS",
    "Labels",
    "Rows",
    "Task",
    "Taxonomy",
    "Texts",
    "load_preset",
    "prepare_task",
    "read_examples",
    "read_pool",
    "read_records",
    "read_taxonomy",
    "read_texts",
    "stream_rows",
    "stream_texts",
    "taxonomy_of",
    "with_splits",
]
