"""Labelled rows in, a `Task` with disjoint train, validation and test rows out."""

from pgkd_agent.data.reading import read_examples, read_texts
from pgkd_agent.data.task import Task, prepare_task
from pgkd_agent.data.taxonomy import read_taxonomy

__all__ = ["Task", "prepare_task", "read_examples", "read_taxonomy", "read_texts"]
