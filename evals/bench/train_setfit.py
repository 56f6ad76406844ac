"""Contender: SetFit, a body tuned on pairs, then logistic regression.

An epoch here is one pass in which every row is in one positive and one negative pair (`num_iterations`), so four texts
a row: all pairs, SetFit's default (`--epochs 0`), would be hundreds of thousands. Its rate (`--body-learning-rate`) is
its default.
With `--save` the model is kept for the comparison of inference.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
from sklearn.linear_model import LogisticRegression
from transformers import TrainerCallback, set_seed

from evals.bench.common import EpochClock, TrainingData, emit, training_options
from evals.bench.embedding import load_body


class _Clock(TrainerCallback):
    """Ticks after every pass over the rows."""

    def __init__(self, clock: EpochClock, passes: int) -> None:
        self._clock = clock
        self._passes = passes

    def on_step_end(self, _args: object, state: object, *_more: object, **_kwargs: object) -> None:
        step, steps = state.global_step, state.max_steps  # type: ignore[attr-defined]
        if step * self._passes // steps > (step - 1) * self._passes // steps:
            self._clock.tick()


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--max-steps", type=int, default=-1, help="end the tuning of the body early")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    data = TrainingData(options)
    set_seed(options.seed)
    model = SetFitModel(
        model_body=load_body(options.model, options.max_length),
        model_head=LogisticRegression(max_iter=1000),
        labels=data.labels,
    )
    arguments = TrainingArguments(
        output_dir=str(options.save or "checkpoints"),
        num_iterations=options.epochs or None,
        num_epochs=1,
        batch_size=options.batch_size,
        body_learning_rate=options.body_learning_rate,
        max_steps=options.max_steps,
        seed=options.seed,
        save_strategy="no",
        report_to="none",
        show_progress_bar=False,
    )
    table = Dataset.from_dict({"text": [text for text, _label in data.own], "label": data.ids(data.own)})
    trainer = Trainer(model=model, args=arguments, train_dataset=table)
    clock = EpochClock()
    trainer.add_callback(_Clock(clock, options.epochs or 1))
    trainer.train()
    figures = clock.figures()
    if options.save:
        model.save_pretrained(str(options.save))
    probabilities = model.predict_proba([text for text, _label in data.test], as_numpy=True)
    emit({**figures, **data.quality(probabilities.tolist(), model.model_head.classes_.tolist())})


if __name__ == "__main__":
    main()
