"""Which contenders there are, and how each is started; all paths absolute."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS = ("train", "bert-base", "infer", "guardrails", "restart")

TRAINING_DATASETS = ("banking77", "ag_news")
INFERENCE_DATASETS = ("huffpost", "ag_news", "amzn_reviews")

FULL_PRECISION = "ours, torch fp32"
"""Whose labels the others' are compared with."""

GUARDRAIL_ROWS = (20_000, 100_000)


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
            *("--test-rows", str(options.test_rows), "--epochs", str(options.epochs)),
            *("--learning-rate", str(options.learning_rate), "--body-learning-rate", str(options.body_learning_rate)),
        )
        setfit = (*common, "--epochs", str(options.setfit_epochs or options.epochs))
        yield Race(
            "train",
            dataset,
            (
                Contender("ours", "train_ours", common, is_ours=True),
                Contender("Trainer, defaults", "train_trainer", common, is_rival=True),
                Contender("Trainer, tuned", "train_trainer", (*common, "--tuned"), is_rival=True),
                Contender("sentence-transformers", "train_sentence_transformers", common, is_rival=True),
                Contender("SetFit", "train_setfit", setfit, is_rival=True),
            ),
            seeded=True,
        )


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
            *("--test-rows", str(options.test_rows)),
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


def _chosen(datasets: tuple[str, ...], options: argparse.Namespace) -> list[str]:
    """Those that are asked for and there."""
    asked = [name for name in datasets if not options.datasets or name in options.datasets]
    for name in asked:
        if not (options.data / name).is_dir():
            sys.stderr.write(f"{options.data} holds no {name}, which is left out\n")
    return [name for name in asked if (options.data / name).is_dir()]
