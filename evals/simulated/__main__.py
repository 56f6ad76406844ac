"""What labels are worth: the loop with a teacher that knows the answers and errs as often as it is told to, or an LLM.

    python -m evals.simulated --data DIR/banking77 --seeds 1 2 3 --accuracy 0.9 --steps 2 --labels 500
    python -m evals.simulated --data DIR/banking77 --seeds 1 2 3 --accuracy 0.9 --steps 2 --labels 500 --choose drawn
    python -m evals.simulated --data DIR/huffpost --seeds 1 2 3 --accuracy 1 --steps 2 --write 300 --plan even
    python -m evals.simulated --data DIR/banking77 --teacher local:FILE.gguf --steps 1 --labels 200 --calls FILE

The pool is what `train.jsonl` holds beside the rows drawn for training and validation; its labels are hidden from the
student, and the simulated teacher answers from them. Where it errs it names one of the three likeliest others.
`--choose entropy` and `weak` (places for the classes that the report finds weak) are ways that were tried.

With `--write` it writes in place of labelling: rows of the pool, of the classes that the report finds weak, or of all
alike; with `--like hard` such as are like the student's confident mistakes. Where it errs it writes of another class.

Prints a line of JSON for each model, judged on further rows of `train.jsonl` that are not in the pool, or with `--test`
on the test rows. Of the texts that a step labelled it has the share that student, teacher and both together name right.
`--frozen` puts a logistic regression on frozen embeddings in the student's place.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evals.simulated.frozen import FrozenStudent
from evals.simulated.teachers import SimulatedAnnotator, SimulatedWriter, VotingAnnotator
from evals.tuning import drawn
from pgkd_agent import PGKDConfig, build_config
from pgkd_agent.data import Task, read_examples, read_taxonomy
from pgkd_agent.loop.algorithm import PGKDResult, run_pgkd
from pgkd_agent.loop.choosing import Choice, at_random, choose, margins
from pgkd_agent.loop.guardrails import Guardrails
from pgkd_agent.loop.history import texts_of
from pgkd_agent.loop.observer import LoopObserver
from pgkd_agent.loop.protocols import Student
from pgkd_agent.metrics.report import evaluate
from pgkd_agent.student.embedding import Embedder
from pgkd_agent.student.head_start import class_texts
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.teacher.annotation import Annotate
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.labelling import CachedEmbedder, Labelled, Labelling, LabellingTeacher, Pool
from pgkd_agent.teacher.standalone import open_annotator
from pgkd_agent.types import (
    ClassificationReport,
    Evaluation,
    Example,
    Probabilities,
    StepRecord,
    label_names,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl, test.jsonl and labels.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, default=1000, help="drawn for training and validation")
    parser.add_argument("--accuracy", type=float, default=0.9, help="how often the teacher is right")
    parser.add_argument("--teacher", metavar="PROVIDER:MODEL", help="an LLM in place of the simulated teacher")
    parser.add_argument("--calls", type=Path, help="file of its calls; what is in it is not asked again")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--labels", type=int, default=500, help="a step")
    parser.add_argument("--write", type=int, metavar="N", help="samples a step, in place of labels")
    parser.add_argument("--plan", choices=["guided", "even"], default="guided", help="which classes it writes for")
    parser.add_argument("--like", choices=["any", "hard", "right"], default="any", help="rows that it writes more of")
    parser.add_argument("--choose", choices=["margin", "drawn", "entropy", "weak"], default="margin")
    parser.add_argument("--votes", type=int, metavar="N", help="of the LLM's probabilities only N draws are known")
    parser.add_argument("--frozen", action="store_true", help="frozen embeddings as the student: seconds, not hours")
    parser.add_argument("--judges", type=int, default=1500, help="further rows, at most")
    parser.add_argument("--test", action="store_true", help="judge by the test rows")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    rows, taxonomy = read_examples(options.data / "train.jsonl"), read_taxonomy(options.data / "labels.json")
    embed = CachedEmbedder(Embedder(build_config(assignments=options.settings).student))
    for seed in options.seeds:
        task, further = drawn(rows, taxonomy, options.rows, seed)
        judges = read_examples(options.data / "test.jsonl") if options.test else further[: options.judges]
        pool = further if options.test else further[options.judges :]
        for line in _run(task, pool, judges, embed, seed, options):
            _say({"data": options.data.name, "seed": seed, **line})


def _run(
    task: Task,
    pool: Sequence[Example],
    judges: Sequence[Example],
    embed: CachedEmbedder,
    seed: int,
    options: argparse.Namespace,
) -> Iterator[dict[str, object]]:
    names = label_names(task.taxonomy)
    gold = {row.text: names.index(row.label) for row in (*task.train, *pool)}
    task = task.with_unlabelled(texts_of(pool))
    flags: dict[str, object] = {
        "seed": seed,
        "pgkd.num_kd_steps": options.steps,
        "pgkd.labels_per_step": 0 if options.write else options.labels,
        "pgkd.pgkd_batch_size": options.write,
        "teacher.spec": options.teacher,
    }
    config = build_config(assignments=options.settings, flags=flags)
    student: Student = (
        FrozenStudent(embed, task.taxonomy) if options.frozen else TorchStudent(config.student, task.taxonomy, seed)
    )
    judged = _Judged(student, task, judges)
    if options.write:
        yield from _written(task, pool, student, config, embed, judged, options)
        return
    pool_of = Pool(task.unlabelled, student.predict, embed, class_texts(task.taxonomy))
    choices: dict[str, Choice] = {
        "margin": choose,
        "drawn": at_random(seed),
        "entropy": _entropy,
        "weak": partial(_weak, judged),
    }
    screener = judged.screener(config)
    with _annotator(task, gold, config, options) as annotator:
        teacher = _Watched(
            *(annotator, pool_of, task.train, task.taxonomy, seed, choices[options.choose]),
            on_gold=lambda check: _say({"gold": str(check), "gain": asdict(check.gain)}),
        )
        result = run_pgkd(task, student, teacher, screener, config, judged)
    for line in judged.lines(result):
        said = teacher.steps.get(line["step"], [])
        yield {
            "teacher": annotator.model_id,
            "choice": options.choose,
            **line,
            "right": {who: _share(said, who, gold, names) for who in ("student", "teacher", "label")} if said else None,
        }


def _written(
    task: Task,
    pool: Sequence[Example],
    student: Student,
    config: PGKDConfig,
    embed: CachedEmbedder,
    judged: _Judged,
    options: argparse.Namespace,
) -> Iterator[dict[str, object]]:
    writer = SimulatedWriter(pool, options.accuracy, config, options.plan == "guided", options.like, embed)
    result = run_pgkd(replace(task, unlabelled=()), student, writer, judged.screener(config), config, judged)
    for line in judged.lines(result):
        yield {"teacher": writer.model_id, "plan": options.plan, "like": options.like, **line}


def _share(rows: Sequence[Labelled], who: str, gold: Mapping[str, int], names: Sequence[str]) -> float:
    return round(float(np.mean([getattr(row, who) == names[gold[row.text]] for row in rows])), 4)


@contextmanager
def _annotator(
    task: Task, gold: Mapping[str, int], config: PGKDConfig, options: argparse.Namespace
) -> Iterator[Annotate]:
    if not options.teacher:
        yield SimulatedAnnotator(gold, options.accuracy, config.seed)
        return
    budget = Budget(config.budget, load_prices(config.teacher.prices))
    log = options.calls or Path(":memory:")
    with open_annotator(task.taxonomy, task.description, config, budget, log) as annotator:
        yield VotingAnnotator(annotator, options.votes, config.seed) if options.votes else annotator


def _entropy(probabilities: Probabilities, _embeddings: np.ndarray, num: int) -> list[int]:
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
    return [int(row) for row in np.argsort(-entropy, kind="stable")[:num]]


def _weak(judged: _Judged, probabilities: Probabilities, _embeddings: np.ndarray, num: int) -> list[int]:
    """Places for each class that the student would name, as many as its F1 on the validation rows is low."""
    assert judged.report is not None
    predicted = probabilities.argmax(axis=1)
    lacking = np.array([1.05 - row.f1 if row.has_data else 0.5 for row in judged.report.classes])
    lacking *= np.bincount(predicted, minlength=len(lacking)) > 0
    places = np.maximum(1, np.round(num * lacking / lacking.sum()))
    order, chosen = [int(row) for row in np.argsort(margins(probabilities), kind="stable")], []
    for row in order:
        if places[predicted[row]]:
            places[predicted[row]] -= 1
            chosen.append(row)
    taken = set(chosen)
    return [*chosen, *(row for row in order if row not in taken)][:num]


class _Watched(LabellingTeacher):
    """Keeps who said what in each KD step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps: dict[int, list[Labelled]] = {}

    def label(self, kd_step: int, num: int) -> Labelling:
        done = super().label(kd_step, num)
        self.steps[kd_step] = done.rows
        return done


def _say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class _Judged(LoopObserver):
    """Evaluates each model on rows that the loop does not know."""

    def __init__(self, student: Student, task: Task, judges: Sequence[Example]) -> None:
        self._student = student
        self._task = task
        self._judges = judges
        self.evaluations: list[Evaluation] = []
        self.report: ClassificationReport | None = None

    def screener(self, config: PGKDConfig) -> Guardrails:
        """Lets no row through that validates or judges."""
        return Guardrails(config.guardrails, self._task.taxonomy, texts_of((*self._task.validation, *self._judges)))

    def lines(self, result: PGKDResult) -> Iterator[dict[str, Any]]:
        """Of each model; `accepted` are the labelled or written rows that its step added."""
        for step, evaluation in zip(result.steps, self.evaluations, strict=True):
            yield {
                "step": step.kd_step,
                "returned": step.kd_step == result.best_step,
                "validation_loss": round(step.validation.loss, 4),
                "accuracy": round(evaluation.report.accuracy, 4),
                "macro_f1": round(evaluation.report.macro_f1, 4),
                "accepted": step.accepted,
            }

    def on_step(self, record: StepRecord) -> None:
        self.report = record.validation.report
        probabilities = self._student.predict(texts_of(self._judges))
        self.evaluations.append(evaluate(probabilities, self._judges, self._task.taxonomy))


if __name__ == "__main__":
    main()
