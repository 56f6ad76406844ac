"""Contender: `transformers.Trainer`, with its defaults or (`--tuned`) with bf16, fused AdamW and batches by length.

Its learning rates, warm-up and weight decay are ours, not its default of 5e-5 for all, at which a small encoder is
undertrained: the comparison is of time at equal accuracy.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from evals.bench.common import EpochClock, TrainingData, emit, training_options

TUNED = {"bf16": True, "optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}


class _FastHeadTrainer(Trainer):
    """Whatever is not in the encoder learns at a rate of its own."""

    head_factor = 1.0

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args, **kwargs)
        encoder = {id(parameter) for parameter in self.model.base_model.parameters()}
        for group in list(optimizer.param_groups):
            head = [parameter for parameter in group["params"] if id(parameter) not in encoder]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) in encoder]
            optimizer.add_param_group({**group, "params": head, "lr": group["lr"] * self.head_factor})
        return optimizer


class _Clock(TrainerCallback):
    """Starts with the training, as that of ours."""

    epochs: EpochClock

    def on_train_begin(self, *_args: object, **_kwargs: object) -> None:
        self.epochs = EpochClock()

    def on_epoch_end(self, *_args: object, **_kwargs: object) -> None:
        self.epochs.tick()


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--tuned", action="store_true")
    options = parser.parse_args()
    data = TrainingData(options)
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(data.labels))

    def encoded(rows: list[tuple[str, str]]) -> Dataset:
        table = Dataset.from_dict({"text": [text for text, _label in rows], "labels": data.ids(rows)})
        return table.map(
            lambda batch: tokenizer(batch["text"], truncation=True, max_length=options.max_length),
            batched=True,
            remove_columns="text",
        )

    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=options.learning_rate,
            warmup_steps=options.warmup_share,  # below 1 a share
            weight_decay=options.weight_decay,
            seed=options.seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **(TUNED if options.tuned else {}),
        )
        trainer = _FastHeadTrainer(
            model=model,
            args=arguments,
            train_dataset=encoded(data.train),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.head_factor = options.head_factor
        trainer.train()
        figures = clock.epochs.figures()
        answers = trainer.predict(encoded(data.test))  # with batches by length in an order of its own
        probabilities = torch.from_numpy(answers.predictions).double().softmax(dim=-1)
    emit({**figures, **data.quality(probabilities.tolist(), gold=answers.label_ids.tolist())})


if __name__ == "__main__":
    main()
