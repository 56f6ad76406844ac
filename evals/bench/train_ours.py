"""Contender: `TorchStudent.fit`.

It computes the loss on its validation rows after every epoch and keeps the best one's weights, within the time that is
reported; the rivals do neither.
"""

from __future__ import annotations

from evals.bench.common import EpochClock, TrainingData, accuracy, emit, training_options
from pgkd_agent import Example, Label, build_config
from pgkd_agent.student.student import TorchStudent


def main() -> None:
    options = training_options(__doc__).parse_args()
    data = TrainingData(options)
    flags = {
        "student.name": str(options.model),
        "student.learning_rate": options.learning_rate,
        "student.head_factor": options.head_factor,
        "student.label_smoothing": 0.0,  # as the others
        "student.soft_labels": 0.0,
        "student.warmup_share": options.warmup_share,
        "student.weight_decay": options.weight_decay,
        "student.train_batch_size": options.batch_size,
        "student.max_epochs": options.epochs,
        "student.patience": options.epochs,  # as many epochs as the others
        "student.max_length": options.max_length,
        "student.device": "cpu",
    }
    clock: EpochClock
    student = TorchStudent(
        build_config(flags=flags).student,
        tuple(map(Label, data.labels)),
        options.seed,
        on_epoch=lambda _epoch, _most, _loss: clock.tick(),
    )
    train, validation = ([Example(*row) for row in rows] for rows in (data.train, data.validation))
    clock = EpochClock()
    student.fit(train, validation, kd_step=0)
    figures = clock.figures()
    predicted = student.predict([text for text, _label in data.test]).argmax(axis=1)
    emit({**figures, "accuracy": accuracy(predicted.tolist(), data.ids(data.test))})


if __name__ == "__main__":
    main()
