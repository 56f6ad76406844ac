"""Contender: the plain student of this package.

It computes the loss on its validation rows after every epoch and keeps the best one's weights, within the time that is
reported; the rivals do neither. With `--all-rows` it is then trained once more, as `student.refit` says. What no option
names is the package's own: with `--epochs` it takes exactly as many, else it may stop early. `--set` is as in
`pgkd train`, and options that are named win over it.
"""

from __future__ import annotations

from dataclasses import replace

from evals.bench.common import EpochClock, TrainingData, emit, training_options
from pgkd_agent import Example, Label, build_config
from pgkd_agent.loop.history import History
from pgkd_agent.loop.training import fit_history, rows_again
from pgkd_agent.student.recipe import recipe_for
from pgkd_agent.student.student import TorchStudent

OWN = ("learning_rate", "head_factor", "batch_size", "epochs", "max_length")
"""Options without which the package's defaults hold."""


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.set_defaults(**dict.fromkeys(OWN))
    options = parser.parse_args()
    data = TrainingData(options)
    flags = {
        "student.name": str(options.model),
        "student.learning_rate": options.learning_rate,
        "student.train_batch_size": options.batch_size,
        "student.max_epochs": options.epochs,
        "student.max_length": options.max_length,
        "student.device": "cpu",
    }
    settings = build_config(assignments=options.settings, flags=flags).student
    named = {
        "head_factor": options.head_factor,
        "patience": options.epochs,  # as many epochs as the others
    }
    recipe = replace(recipe_for(settings), **{name: value for name, value in named.items() if value is not None})
    clock: EpochClock
    student = TorchStudent(
        settings,
        tuple(map(Label, data.labels)),
        options.seed,
        on_epoch=lambda _epoch, _most, _loss: clock.tick(),
        recipe=recipe,
    )
    train, validation = ([Example(*row) for row in rows] for rows in (data.train, data.validation))
    clock = EpochClock()
    fit_history(student, History.of(train), validation, kd_step=0, balance=settings.balance)
    if options.all_rows:  # as `student.refit`
        rows = History.of([*train, *validation]).rows
        student.refit([*rows, *rows_again(rows, settings.balance)], validation, kd_step=0)
    figures = clock.figures()
    probabilities = student.predict([text for text, _label in data.test])
    emit({**figures, **data.quality(probabilities.tolist())})


if __name__ == "__main__":
    main()
