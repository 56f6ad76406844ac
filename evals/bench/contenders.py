"""Which contenders there are, and how each is started; all paths absolute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS = ("train", "student", "bert-base", "infer", "guardrails", "restart")

TRAINING_DATASETS = ("banking77", "ag_news")
STUDENT_DATASETS = ("banking77", "huffpost", "amzn_reviews", "ag_news", "imdb", "inshorts")
INFERENCE_DATASETS = ("huffpost", "ag_news", "amzn_reviews")

FULL_PRECISION = "ours, torch fp32"
"""Whose labels the others' are compared with."""

GUARDRAIL_ROWS = (20_000, 100_000)

TEST_ROWS = 1000
"""At most, where `--test-rows` names no number; the part `student` takes all."""

SETFIT_ITERATIONS = 20
"""Of its paper, and its default before version 1.0; today's, all pairs, would be a million texts."""

AS_OTHERS = (
    *("--batch-size", "32", "--head-factor", "10", "--max-length", "512"),
    *("--set", "student.label_smoothing=0", "--set", "student.soft_labels=0"),
    *("--set", "student.balance=0", "--set", "student.head_init=random"),
)
"""What ours is told where it is to train as `Trainer` does, whatever its defaults."""


@dataclass(frozen=True)
class Contender:
    """One line of a table.

    Attributes:
        is_rival: Started with the rivals' Python.
        module: Of evals.bench.
        is_ours: May be what others are compared with.
        once: In the first round only, since it takes long and is far from the others.
        labels: Where it writes what it predicted, to be compared with the reference; None where it is another model.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    is_rival: bool = False
    is_ours: bool = False
    once: bool = False
    labels: Path | None = None


@dataclass(frozen=True)
class Race:
    """Contenders over the same data, interleaved: A B C A B C.

    Attributes:
        prepare: Makes what they need, once; raises RuntimeError where that fails.
        seeded: Every round has a seed, `--seed` of the contenders.
    """

    part: str
    dataset: str
    contenders: tuple[Contender, ...]
    seeded: bool = False
    prepare: Callable[[], None] = lambda: None


def training(options: argparse.Namespace, model: Path) -> Iterator[Race]:
    for dataset in _chosen(TRAINING_DATASETS, options):
        common = (
            *("--data", str(options.data / dataset), "--model", str(model), "--rows", str(options.rows)),
            *("--test-rows", _number(options.test_rows, TEST_ROWS), "--epochs", str(options.epochs)),
            *("--learning-rate", str(options.learning_rate), "--body-learning-rate", str(options.body_learning_rate)),
        )
        setfit = (*common, "--epochs", _number(options.setfit_epochs, options.epochs))
        yield Race(
            "train",
            dataset,
            (
                Contender("ours", "train_ours", (*common, *AS_OTHERS), is_ours=True),
                Contender("Trainer, defaults", "train_trainer", common, is_rival=True),
                Contender("Trainer, tuned", "train_trainer", (*common, "--tuned"), is_rival=True),
                Contender("sentence-transformers", "train_sentence_transformers", common, is_rival=True),
                Contender("SetFit", "train_setfit", setfit, is_rival=True),
            ),
            seeded=True,
        )


def student(
    options: argparse.Namespace, work: Path, model: Path, prepare: Callable[[str, Path], None]
) -> Iterator[Race]:
    """The student on real rows alone, and what else would be trained on them; all on the package's splits.

    Args:
        prepare: Told the dataset and the folder for its splits.
    """
    for dataset in _chosen(STUDENT_DATASETS, options):
        splits = work / "splits" / f"{dataset}-{options.rows}"
        common = (
            *("--data", str(options.data / dataset), "--model", str(model), "--splits", str(splits)),
            *("--test-rows", _number(options.test_rows, 0), *(["--all-rows"] if options.all_rows else [])),
        )
        body = (*common, "--body-learning-rate", str(options.body_learning_rate))
        setfit = (*body, "--epochs", _number(options.setfit_epochs, SETFIT_ITERATIONS))
        fastfit = (*common, "--epochs", str(options.fastfit_epochs), "--repeats", str(options.fastfit_repeats))
        contenders = [
            Contender("ours", "train_ours", common, is_ours=True),
            Contender("SetFit", "train_setfit", setfit, is_rival=True),
            Contender("FastFit", "train_fastfit", fastfit, is_rival=True),
            Contender(
                "sentence-transformers",
                "train_sentence_transformers",
                (*body, "--epochs", str(options.epochs)),
                is_rival=True,
            ),
            Contender("frozen embeddings", "train_frozen", common, is_rival=True),
        ]
        if options.before:
            settings = [part for setting in options.before for part in ("--set", setting)]
            contenders.insert(1, Contender("ours before", "train_ours", (*common, *settings), is_ours=True))

        def made(dataset: str = dataset, splits: Path = splits) -> None:
            prepare(dataset, splits)

        yield Race("student", dataset, tuple(contenders), seeded=True, prepare=made)


def bert_base(options: argparse.Namespace, folder: Path, prepare: Callable[[], None]) -> Iterator[Race]:
    arguments = ("--model", str(folder), "--rows", str(options.bert_rows))
    yield Race(
        "bert-base",
        "128 tokens",
        (Contender("ours", "train_bert_base", arguments, is_ours=True),),
        prepare=prepare,
    )


def inference(
    options: argparse.Namespace, work: Path, model: Path, prepare: Callable[[str, Path, Path], None]
) -> Iterator[Race]:
    """
    Args:
        prepare: Told the dataset, the folder for its texts and labels, and that of its student.
    """
    for dataset in _chosen(INFERENCE_DATASETS, options):
        folder = work / "inference" / dataset
        made_of = f"{model.name}-{dataset}-{options.student_rows}-{options.student_epochs}"
        student = work / "students" / made_of
        best = student / "models" / "best"
        exported = best.with_name("best-onnx")

        def lined_up(
            name: str,
            module: str,
            model: Path,
            *more: str,
            rival: bool = False,
            compared: bool = True,
            folder: Path = folder,
        ) -> Contender:
            labels = folder / f"{name.replace(' ', '-').replace(',', '')}.json"
            arguments = ("--model", str(model), "--texts", str(folder / "texts.json"), "--calls", str(options.calls))
            return Contender(
                name,
                module,
                (*arguments, "--labels-out", str(labels), *more),
                is_rival=rival,
                is_ours=not rival,
                labels=labels if compared else None,
            )

        contenders = [
            lined_up(FULL_PRECISION, "infer_ours", best),
            lined_up("ours, torch bf16", "infer_ours", best, "--precision", "bf16"),
            lined_up("ours, onnx", "infer_ours", exported, "--engine", "onnx"),
            lined_up("ours, onnx-int8", "infer_ours", best.with_name("best-onnx-int8"), "--engine", "onnx"),
            lined_up("ours, openvino fp32", "infer_ours", exported, "--engine", "openvino"),
            lined_up("ours, openvino bf16", "infer_ours", exported, "--engine", "openvino", "--precision", "bf16"),
            lined_up("HF pipeline", "infer_pipeline", best, rival=True),
            lined_up("HF pipeline, bf16", "infer_pipeline", best, "--dtype", "bfloat16", rival=True),
            lined_up("ONNX Runtime by hand", "infer_onnxruntime", exported, rival=True),
            lined_up(
                "SetFit predict",
                "infer_setfit",
                work / "setfit" / f"{model.name}-{dataset}",
                rival=True,
                compared=False,
            ),
        ]
        if options.llm:
            asked = ("--data", str(options.data / dataset), "--teacher", f"local:{options.llm}")
            more = ("--texts", str(options.llm_texts), "--threads", str(options.llm_threads))
            contenders.append(Contender("LLM, zero-shot", "infer_llm", (*asked, *more), once=True))

        def made(dataset: str = dataset, folder: Path = folder, student: Path = student) -> None:
            prepare(dataset, folder, student)

        yield Race("infer", dataset, tuple(contenders), prepare=made)


def guardrails(options: argparse.Namespace) -> Iterator[Race]:
    folders = sorted(str(file.parent) for file in options.data.glob("*/train.jsonl"))
    yield Race(
        "guardrails",
        "all",
        tuple(
            Contender(f"{rows:,} rows", "screening", ("--history", str(rows), "--data", *folders), is_ours=True)
            for rows in GUARDRAIL_ROWS
        ),
    )


def restart(options: argparse.Namespace, model: Path) -> Iterator[Race]:
    for dataset in _chosen(TRAINING_DATASETS, options):
        common = (
            *("--data", str(options.data / dataset), "--model", str(model), "--rows", str(options.restart_rows)),
            *("--steps", str(options.restart_steps), "--epochs", str(options.epochs)),
            *("--test-rows", _number(options.test_rows, TEST_ROWS)),
        )
        yield Race(
            "restart",
            dataset,
            tuple(
                Contender(policy, "restart", (*common, "--policy", policy), is_ours=policy == "from_scratch")
                for policy in ("from_scratch", "continue")
            ),
            seeded=True,
        )


def _number(named: int | None, otherwise: int) -> str:
    return str(otherwise if named is None else named)


def _chosen(datasets: tuple[str, ...], options: argparse.Namespace) -> list[str]:
    """Those that are asked for and there."""
    asked = [name for name in datasets if not options.datasets or name in options.datasets]
    for name in asked:
        if not (options.data / name).is_dir():
            sys.stderr.write(f"{options.data} holds no {name}, which is left out\n")
    return [name for name in asked if (options.data / name).is_dir()]
