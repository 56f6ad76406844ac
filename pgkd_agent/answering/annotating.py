"""Have a teacher label texts outside a run, for a person to review."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data.reading import Texts, read_pool
from pgkd_agent.files import lock_beside
from pgkd_agent.loop.trust import GoldCheck
from pgkd_agent.runs.stored import read_run
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.labelling import Labelling, LabellingTeacher, Pool
from pgkd_agent.teacher.standalone import open_annotator


def annotate(
    run: Path,
    texts: Texts,
    config: PGKDConfig,
    num: int,
    calls: Path,
    on_request: Callable[[int, int, int], None] | None = None,
    on_gold: Callable[[GoldCheck], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Labelling:
    """Label those of the texts that a run's best model is least sure of.

    Args:
        run: Its training rows stand beside the texts in the prompts, and check the teacher first.
        texts: A file, or strings; what is a row of the run already is left out.
        config: `teacher`, `budget` and `data.text_column` count.
        num: Most texts to label.
        calls: File of all calls: the same texts asked again with it cost nothing.
        on_request, on_gold: See `LabellingTeacher`.
        on_wait: Told how far a batch job is.
    Raises:
        ConfigError, StorageError: It is no run with a model, or a damaged one; or another process uses `calls`.
        TeacherUnavailableError: The provider failed for good.
    """
    from pgkd_agent.student.classifier import StudentClassifier
    from pgkd_agent.student.embedding import Embedder
    from pgkd_agent.student.head_start import class_texts

    stored = read_run(run)
    classifier = StudentClassifier.load(run / "models" / "best")
    task = stored.task.with_unlabelled(read_pool(texts, config.data.text_column))
    pool = Pool(task.unlabelled, classifier.probabilities, Embedder(stored.config.student), class_texts(task.taxonomy))
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    with ExitStack() as stack:
        stack.callback(lock_beside(calls).release)
        annotator = stack.enter_context(
            open_annotator(task.taxonomy, task.description, config, budget, calls, on_wait=on_wait)
        )
        teacher = LabellingTeacher(
            annotator, pool, task.train, task.taxonomy, stored.config.seed, on_request=on_request, on_gold=on_gold
        )
        return teacher.label(kd_step=0, num=num)


def as_rows(labelling: Labelling) -> list[dict[str, Any]]:
    """For a table that people review: the text, its label, how sure it is, and who said what.

    By `source` an import knows that the texts are not the teacher's.
    """
    return [
        {
            "text": row.text,
            "label": row.label,
            "source": "labelled",
            "confidence": row.shares[0][1],
            "student": row.student,
            "teacher": row.teacher,
            "others": "; ".join(f"{name} {share:.2f}" for name, share in row.shares[1:4]),
        }
        for row in labelling.rows
    ]
