"""Recipes by the hundred: what can be made of a pool of written rows, each fit several times, beside its control.

    python evals/studies/many_fits.py runs/recipe --data DIR --dataset huffpost --out fits.jsonl \
        --set student.learning_rate=2e-4

For each seed the rows that its run of PGKD accepted (`unchosen.py` reads them), fits on a GPU by `stacked.py`. The
number behind a recipe is that of the written rows. `smoothed`: 0.1 of each label spread over all classes. `soft`: a
share of it is the mean prediction of the plain students of that seed: half of a written row, a quarter of a real one.

* `plain`, also `smoothed` and `soft`; `plain balanced`, also `smoothed`: real rows once more until no class has fewer
  than the mean;
* `mixed`, also `smoothed` and `soft`; `smoothed written`, `soft written`: of the written rows alone; `relabelled`: all
  of a written row's label is that prediction;
* `control`, also `smoothed` and `soft`: as many real rows of the same classes once more instead;
* `first`, also `smoothed`; `first soft written`; `control first`, also `smoothed`: the added rows alone, then all;
  `last`: all, then the real rows alone; the second part counts where it lowers the validation loss;
* `weight 0.3`; `agreed`: weighted by the plain students' probability of the label; `likely`: only labels among their
  first five; `verified` (with `--verify`): only those that the teacher itself gives the label they were asked for;
* `filled`: written rows for the classes with fewer real ones than the mean alone, up to it.

With `--default-student` every student is trained as by default, its labels smoothed and rows of rare classes taken
again, and the question is whether a written row's label should be softened, by whom, and how far:

* `plain`, `mixed` and `control` as above; `soft`: half of a written row's label is what the plain students predict
  together, `soft by one`: what the first of them does; `soft 0.8` and `relabelled`: more of it and all;
* `control soft`: the same for the repeated real rows;
* `all soft`: a quarter of a real row's label and half of a written one's; `all control soft`: of a repeated one's;
* `plain halved`, `halved` and `control halved`: half of every label, as `student.soft_labels` 0.5 does; each also
  `by one`, which is that setting.

Writes a line per fit with its figures after each epoch. `OUT.npz` has the loss, the predicted and the true class of
each validation and test row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from stacked import Fits, Judge, Member, Texts, fit_all, weights_of
from unchosen import drawn_task, real_rows, study_parser, written_rows

from pgkd_agent.errors import DataError
from pgkd_agent.experiments.zero_shot import evaluate_zero_shot
from pgkd_agent.loop.history import History, HistoryRow, texts_of
from pgkd_agent.loop.training import rows_again
from pgkd_agent.metrics.report import class_ids
from pgkd_agent.student.batching import encode
from pgkd_agent.student.loading import load_tokenizer, resolve_source
from pgkd_agent.types import Example, label_names

SMOOTHING, TOP, LAYERS = 0.1, 5, 6

Recipe = tuple[np.ndarray, torch.Tensor | None] | tuple[np.ndarray, None, np.ndarray]
"""Rows, their targets (None: their labels), their weights."""


class Study:
    """The fits of one dataset and seed."""

    def __init__(self, options: argparse.Namespace, seed: int, device: torch.device) -> None:
        self.task, config = drawn_task(options.data / options.dataset, options.set, seed)
        number, written = written_rows(options.comparison / "cells" / options.dataset / "pgkd", self.task, config)
        if not number:
            raise DataError(f"the run of {options.dataset} with seed {seed} accepted nothing")
        self.pool = written[:number]
        self.seed, self.device, self.options = seed, device, options
        self.names = label_names(self.task.taxonomy)
        self.classes = len(self.names)
        task = self.task
        rows = [*task.train, *self.pool, *task.validation, *task.test]
        tokenizer = load_tokenizer("minilm")
        encoded = encode(tokenizer, texts_of(rows), config.student.max_length)
        vocabulary = np.array(sorted({0}.union(*encoded)))
        place = {token: index for index, token in enumerate(vocabulary.tolist())}
        self.texts = Texts.of([[place[token] for token in one] for one in encoded], device)
        bert = load_file(Path(resolve_source("minilm")) / "model.safetensors")
        own = weights_of(bert, LAYERS, vocabulary)
        self.pretrained = {name: tensor.to(device) for name, tensor in own.items()}
        ids = torch.from_numpy(class_ids(rows, task.taxonomy)).to(device)
        self.gold = torch.eye(self.classes, device=device)[ids]
        self.real = np.arange(len(task.train))
        self.written = len(task.train) + np.arange(number)
        held = len(task.train) + number
        self.judged = np.arange(held, len(rows))
        end = held + len(task.validation)
        self.validation, self.test = ids[held:end], ids[end:]
        self.verified = np.ones(len(rows), dtype=bool)
        if options.verify:
            answers = options.out.with_suffix(f".{seed}.answers.jsonl")
            predicted = evaluate_zero_shot(self.pool, task.taxonomy, config, answers).predicted
            self.verified[self.written] = [row.label == said for row, said in zip(self.pool, predicted, strict=True)]
        self.rate, self.max_epochs = config.student.learning_rate or 1.5e-4, config.student.max_epochs or 12

    def run(self) -> list[Member]:
        is_default = self.options.default_student
        first = self.as_by_default(self.real, self.gold[self.real]) if is_default else (self.real, None)
        plain = [self.member("plain", *first, fit=fit) for fit in range(self.options.plain)]
        self.fit(plain, predicts_all=True)
        each = torch.from_numpy(np.stack([one.best for one in plain])).to(self.device).float().softmax(-1)
        each = each[:, -len(self.real) - len(self.written) :]
        taught = each.mean(0)
        for one in plain:
            one.best = one.best[: len(self.judged)]
        recipes = self.softened_recipes(taught, each[0]) if is_default else self.recipes(taught)
        names = {name: name.removesuffix(f" {len(self.written)}") for name in recipes}
        known = sorted(set(names.values()))
        if unknown := set(self.options.only).difference(known):
            raise DataError(f"no recipe is called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
        members = [
            self.member(name, *recipe, fit=fit)
            for name, recipe in recipes.items()
            if not self.options.only or names[name] in self.options.only
            for fit in self.fits
        ]
        self.fit(members)
        return [*plain, *members, *([] if is_default or self.options.only else self.in_two_parts(taught))]

    @property
    def fits(self) -> range:
        return range(self.options.fits)

    def recipes(self, taught: torch.Tensor) -> dict[str, Recipe]:
        """What to train on in one part: rows, their targets, their weights."""
        gold, real, smooth = self.gold, self.real, self.smoothed(self.gold)
        balanced = np.concatenate([real, self.numbers(rows_again(History.of(self.task.train).rows, balance=1.0))])
        softly = self.softly(taught, self.written)
        found: dict[str, Recipe] = {
            "plain smoothed": (real, smooth[real]),
            "plain soft": (real, softly[real]),
            "plain balanced": (balanced, None),
            "plain balanced smoothed": (balanced, smooth[balanced]),
            "filled": (np.concatenate([real, self.filling()]), None),
        }
        for size in self.sizes():
            found[f"mixed {size}"] = (np.concatenate([real, self.written[:size]]), None)
            found[f"control {size}"] = (np.concatenate([real, self.repeated(size)]), None)
        agreed = (taught * gold[: len(taught)]).sum(-1).cpu().numpy()[self.written]
        ranked = taught.argsort(-1, descending=True)[:, :TOP].cpu().numpy()
        is_likely = (ranked == gold[: len(taught)].argmax(-1, keepdim=True).cpu().numpy()).any(-1)
        kept = {"likely": self.written[is_likely[self.written]]}
        if self.options.verify:
            kept["verified"] = self.written[self.verified[self.written]]
        both, again = np.concatenate([real, self.written]), np.concatenate([real, self.repeated(len(self.written))])
        weights = {"weight 0.3": np.full(len(self.written), 0.3), "agreed": agreed}
        whole: dict[str, Recipe] = {
            "smoothed": (both, smooth[both]),
            "smoothed written": (both, torch.cat([gold[real], smooth[self.written]])),
            "control smoothed": (again, smooth[again]),
            "soft": (both, softly),
            "soft written": (both, torch.cat([gold[real], softly[self.written]])),
            "control soft": (again, softly[again]),
            "relabelled": (both, torch.cat([gold[real], taught[self.written]])),
            **{name: (both, None, _with_mean_1(len(real), weight)) for name, weight in weights.items()},
            **{name: (np.concatenate([real, rows]), None) for name, rows in kept.items()},
        }
        return found | {f"{name} {len(self.written)}": recipe for name, recipe in whole.items()}

    def softened_recipes(self, taught: torch.Tensor, by_one: torch.Tensor) -> dict[str, Recipe]:
        """Of students as by default: what to train on, and its targets."""
        gold, real, written = self.gold, self.real, self.written
        again = self.repeated(len(written))
        both, twice = np.concatenate([real, written]), np.concatenate([real, again])

        def mixed(added: torch.Tensor) -> Recipe:
            return self.as_by_default(both, torch.cat([gold[real], added]))

        def control(added: torch.Tensor) -> Recipe:
            return self.as_by_default(twice, torch.cat([gold[real], added]))

        found = {
            "mixed": mixed(gold[written]),
            "soft": mixed(self.softened(taught, written, 0.5)),
            "soft by one": mixed(self.softened(by_one, written, 0.5)),
            "soft 0.8": mixed(self.softened(taught, written, 0.8)),
            "relabelled": mixed(taught[written]),
            "control": control(gold[again]),
            "control soft": control(self.softened(taught, again, 0.5)),
            "all soft": self.as_by_default(both, self.softly(taught, written)),
            "all control soft": self.as_by_default(twice, self.softly(taught, again)),
        }
        for by, guide in (("", taught), (" by one", by_one)):
            for name, rows in (("plain halved", real), ("halved", both), ("control halved", twice)):
                found[name + by] = self.as_by_default(rows, self.softened(guide, rows, 0.5))
        return {name if name.startswith("plain") else f"{name} {len(written)}": found[name] for name in found}

    def as_by_default(self, rows: np.ndarray, targets: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """Smoothed, and rows of rare classes again, with the targets that they have."""
        known = [*self.task.train, *self.pool]
        chosen = [HistoryRow(known[row].text, known[row].label, 0, place) for place, row in enumerate(rows)]
        more = [row.request_index for row in rows_again(chosen, balance=1.0)]
        order = np.concatenate([np.arange(len(rows)), np.array(more, dtype=int)])
        return rows[order], self.smoothed(targets)[torch.from_numpy(order).to(self.device)]

    def softly(self, taught: torch.Tensor, added: np.ndarray) -> torch.Tensor:
        """Targets of the real rows and what is added to them."""
        return torch.cat([self.softened(taught, self.real, 0.25), self.softened(taught, added, 0.5)])

    def in_two_parts(self, taught: torch.Tensor) -> list[Member]:
        """The second part goes on from the first, and counts where it lowers the loss."""
        written, again, smooth = self.written, self.repeated(len(self.written)), self.smoothed(self.gold)
        both, twice = np.concatenate([self.real, written]), np.concatenate([self.real, again])
        soft = self.softened(taught, written, 0.5)
        plans: dict[str, tuple[Recipe, Recipe]] = {
            "first": ((written, None), (both, None)),
            "first smoothed": ((written, smooth[written]), (both, smooth[both])),
            "first soft written": ((written, soft), (both, torch.cat([self.gold[self.real], soft]))),
            "control first": ((again, None), (twice, None)),
            "control first smoothed": ((again, smooth[again]), (twice, smooth[twice])),
            "last": ((both, None), (self.real, None)),
        }
        made = [(self.member(name, *plans[name][0], fit=fit), plans[name][1]) for name in plans for fit in self.fits]
        self.fit([first for first, _ in made], keep_weights=True)
        seconds = []
        for first, recipe in made:
            second = self.member(f"{first.name} {len(written)}", *recipe, fit=1000 + first.seed % 1000)
            second.start, second.lowest, first.end = first.end, _lowest(first), None
            seconds.append(second)
        self.fit(seconds)
        for (first, _), second in zip(made, seconds, strict=True):
            second.start = None
            if second.best is None:
                second.best, second.best_epoch = first.best, first.best_epoch
            else:
                second.best_epoch += len(first.epochs)
            second.epochs = [*first.epochs, *second.epochs]
        return seconds

    def smoothed(self, targets: torch.Tensor) -> torch.Tensor:
        return (1 - SMOOTHING) * targets + SMOOTHING / self.classes

    def softened(self, taught: torch.Tensor, rows: np.ndarray, share: float) -> torch.Tensor:
        return (1 - share) * self.gold[rows] + share * taught[rows]

    def lacking(self) -> dict[str, int]:
        """Real rows that each class has fewer than the mean."""
        count = Counter(row.label for row in self.task.train)
        return {name: max(0, round(len(self.real) / len(count)) - count[name]) for name in self.names}

    def filling(self) -> np.ndarray:
        """The first written rows of each class, as many as it lacks."""
        left, rows = Counter(self.lacking()), []
        for row, example in zip(self.written, self.pool, strict=True):
            if left[example.label]:
                left[example.label] -= 1
                rows.append(row)
        return np.array(rows, dtype=int)

    def sizes(self) -> list[int]:
        return [size for size in self.options.sizes if size < len(self.written)] + [len(self.written)]

    def repeated(self, size: int) -> np.ndarray:
        """Real rows of the classes of the first written ones."""
        return self.numbers(real_rows(self.task, self.pool[:size], self.seed))

    def numbers(self, rows: Iterable[Example | HistoryRow]) -> np.ndarray:
        """Of real rows, by what they say."""
        number = {(row.text, row.label): index for index, row in enumerate(self.task.train)}
        return np.array([number[row.text, row.label] for row in rows], dtype=int)

    def member(
        self,
        name: str,
        rows: np.ndarray,
        targets: torch.Tensor | None = None,
        weights: np.ndarray | None = None,
        *,
        fit: int,
    ) -> Member:
        chosen = self.gold[torch.from_numpy(rows).to(self.device)] if targets is None else targets
        return Member(name, 10_000 * self.seed + fit, rows, chosen, weights)

    def fit(self, members: list[Member], predicts_all: bool = False, keep_weights: bool = False) -> None:
        others = np.concatenate([self.real, self.written]) if predicts_all else np.array([], dtype=int)
        judge = Judge(np.concatenate([self.judged, others]), self.validation, self.test, self.classes)
        tokens = self.options.tokens
        fit_all(members, Fits(self.texts, judge, self.pretrained, self.rate, self.max_epochs, tokens, keep_weights))


def _with_mean_1(ones: int, others: np.ndarray) -> np.ndarray:
    weights = np.concatenate([np.ones(ones), others])
    return weights / weights.mean()


def _lowest(member: Member) -> float:
    return member.epochs[member.best_epoch - 1]["validation loss"]


def main() -> None:
    parser = study_parser(__doc__, "Settings as key=value; of the student's rate, epochs and length alone.")
    parser.add_argument("--fits", type=int, default=3, help="Of each recipe and seed.")
    parser.add_argument("--plain", type=int, default=6, help="Fits of the plain student, which teach together.")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="Amounts beside all, for `mixed`.")
    parser.add_argument("--verify", action="store_true", help="Ask the teacher of the settings for its label of each.")
    parser.add_argument("--only", nargs="*", default=[], help="Recipes by name, of those in one part; none for all.")
    parser.add_argument("--default-student", action="store_true", help="Smoothed labels, rare rows again; see above.")
    parser.add_argument("--tokens", type=int, default=120_000, help="Most tokens of a step.")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.default_student and (options.verify or options.sizes):
        parser.error("--verify and --sizes are not for --default-student")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    judged: dict[str, np.ndarray] = {}
    with options.out.open("w", encoding="utf-8") as file:
        for seed in options.seeds:
            started = time.perf_counter()
            study = Study(options, seed, device)
            members = study.run()
            for number, member in enumerate(members):
                record = {
                    "dataset": options.dataset,
                    "seed": seed,
                    "recipe": member.name,
                    "rows": len(member.rows),
                    "best": member.best_epoch,
                    "epochs": [{name: round(value, 4) for name, value in one.items()} for one in member.epochs],
                }
                file.write(json.dumps(record) + "\n")
                scores = torch.from_numpy(member.best).float()
                gold = torch.cat([study.validation, study.test]).cpu()
                losses = torch.nn.functional.cross_entropy(scores, gold, reduction="none")
                judged[f"{seed}-{number}"] = np.stack([losses.numpy(), scores.argmax(-1).numpy(), gold.numpy()])
            file.flush()
            sys.stderr.write(f"{options.dataset} {seed}: {len(members)} fits, {time.perf_counter() - started:.0f} s\n")
    np.savez_compressed(options.out.with_suffix(".npz"), **judged)


if __name__ == "__main__":
    main()
