"""Contender: FastFit (Yehudai and Bendel 2024): a batch-contrastive loss on similarities of tokens between texts and
names of classes; a text is of the class whose name is most similar.

It is the package `fast-fit` itself. That was written for transformers 4 and datasets 2, so it is given the few names
that it misses in later ones. Epochs, batch size, optimizer and length of texts are those of its README, all else its
defaults, as is `--repeats 1`: the README repeats each batch four times, with other dropout, at about six times the
cost. Padding that no text of a batch needs is cut, which it does not do itself and which makes it faster. Names of
classes stand for its test rows, since it takes the classes from all rows it is given. Probabilities are the softmax of
its scores, as in its pipeline.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import torch
from datasets import Dataset
from transformers import PreTrainedConfig, Trainer, default_data_collator

from evals.bench.callbacks import EpochTicks
from evals.bench.common import EpochClock, TrainingData, emit, training_options

PREDICTION_BATCH = 64
"""Of its README."""


class _Trainer(Trainer):
    """As in transformers 4, with batches that are as wide as they must be."""

    def __init__(self, *args: Any, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(*args, processing_class=tokenizer, **{**kwargs, "data_collator": trimmed})


def trimmed(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    batch = default_data_collator(rows)
    for part in ("query", "doc"):
        width = int(batch[f"{part}_attention_mask"].sum(dim=1).max())
        for name in ("input_ids", "attention_mask"):
            batch[f"{part}_{name}"] = batch[f"{part}_{name}"][:, :width]
    return batch


def load_package() -> ModuleType:
    """`fastfit.train`, with what it expects of older libraries."""
    datasets.load_metric = lambda *_args, **_kwargs: None  # for evaluations, of which there are none here
    PreTrainedConfig.is_decoder = PreTrainedConfig.add_cross_attention = False  # MPNet's has neither any more
    package = importlib.import_module("fastfit.train")
    package.Trainer = _Trainer  # type: ignore[attr-defined]
    return package


def predictions(fitted: Any, texts: list[str]) -> Iterator[list[float]]:
    """A row of probabilities for each text, columns as `fitted.labels`."""
    model, tokenizer = fitted.trainer.model.eval(), fitted.tokenizer
    longest = fitted.data_args.max_text_length
    for start in range(0, len(texts), PREDICTION_BATCH):
        batch = tokenizer(
            texts[start : start + PREDICTION_BATCH],
            padding=True,
            truncation=True,
            max_length=longest,
            return_attention_mask=True,
            return_tensors="pt",
        )
        scores = model.inference_forward(batch["input_ids"], batch["attention_mask"])
        yield from scores.double().softmax(dim=1).tolist()


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="of each batch")
    parser.add_argument("--optimizer", default="adafactor")
    parser.add_argument("--temperature", type=float, default=0.07, help="of the contrastive loss")
    parser.set_defaults(epochs=40, max_length=128, body_learning_rate=5e-5)
    options = parser.parse_args()
    data = TrainingData(options)

    def table(rows: list[tuple[str, str]]) -> Dataset:
        return Dataset.from_dict({"text": [text for text, _label in rows], "label": [label for _text, label in rows]})

    with tempfile.TemporaryDirectory() as folder:
        trainer = load_package().FastFitTrainer(
            train_dataset=table(data.own),
            test_dataset=table([(name, name) for name in data.labels]),
            text_column_name="text",
            label_column_name="label",
            model_name_or_path=str(options.model),
            output_dir=str(Path(folder) / "out"),  # not there yet: it looks into one that is
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.body_learning_rate,
            max_text_length=options.max_length,
            num_repeats=options.repeats,
            optim=options.optimizer,
            seed=options.seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            log_level="error",
            disable_tqdm=True,
        )
        trainer.model.sim_criterion.temperature = options.temperature
        clock = EpochClock()
        trainer.trainer.add_callback(EpochTicks(clock))
        trainer.train()
    figures = clock.figures()
    probabilities = list(predictions(trainer, [text for text, _label in data.test]))
    emit({**figures, **data.quality(probabilities, [data.class_ids[name] for name in trainer.labels])})


if __name__ == "__main__":
    main()
