"""What settings do to the plain student, judged on rows that take no other part.

    python -m evals.tuning --data DIR/huffpost --seeds 1 2 --set student.label_smoothing=0 --recipe contrastive=0

Of the rows in train.jsonl that are neither drawn for training nor for validation with a seed, some judge the fit, so
that no test row is looked at. Prints a line of JSON for each seed. With `--static` the student is none: vectors of
single tokens, as the encoder gives them for each alone, are weighted by their rank in the vocabulary and averaged, and
a logistic regression is fitted to that (after model2vec, github.com/MinishLab/model2vec).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import normalize
from transformers import AutoModel

from pgkd_agent import build_config
from pgkd_agent.config import PGKDConfig, nested_settings
from pgkd_agent.data import Task, Taxonomy, prepare_task, read_examples, read_taxonomy
from pgkd_agent.loop.history import History, texts_of
from pgkd_agent.loop.training import fit_history, rows_again
from pgkd_agent.metrics.report import class_ids, evaluate
from pgkd_agent.student.batching import encode
from pgkd_agent.student.loading import load_tokenizer, resolve_source
from pgkd_agent.student.recipe import recipe_for
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Evaluation, Example, Probabilities

Predict = Callable[[Sequence[str]], Probabilities]

STATIC_WIDTH = 256
"""Of static vectors, after a principal component analysis."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.jsonl and labels.json")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", type=int, default=1000, help="drawn for training and validation")
    parser.add_argument("--judges", type=int, default=1500, help="further rows, at most")
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--refit", action="store_true", help="then once more, on the validation rows too")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--recipe", action="append", default=[], metavar="FIELD=VALUE", help="of TrainingRecipe")
    options = parser.parse_args()
    pool, taxonomy = read_examples(options.data / "train.jsonl"), read_taxonomy(options.data / "labels.json")
    for seed in options.seeds:
        task, further = drawn(pool, taxonomy, options.rows, seed)
        config = build_config(assignments=[*options.settings, f"seed={seed}"])
        predict = (
            static(task, config)
            if options.static
            else fitted(task, config, nested_settings(options.recipe), options.refit)
        )
        parts = {"validation": task.validation, "further": further[: options.judges]}
        found = {name: evaluate(predict(texts_of(rows)), rows, taxonomy) for name, rows in parts.items()}
        sys.stdout.write(json.dumps({"seed": seed, **{name: _figures(one) for name, one in found.items()}}) + "\n")
        sys.stdout.flush()


def drawn(pool: Sequence[Example], taxonomy: Taxonomy, rows: int, seed: int) -> tuple[Task, list[Example]]:
    """A task of so many rows, and the further ones, which take no part in it, in random order."""
    task = prepare_task(pool, taxonomy=taxonomy, rows=rows, seed=seed)
    taken = {row.text for row in (*task.train, *task.validation)}
    further = [row for row in pool if row.text not in taken]
    random.Random(seed).shuffle(further)
    return task, further


def _figures(evaluation: Evaluation) -> dict[str, float]:
    report = evaluation.report
    figures = {"loss": evaluation.loss, "accuracy": report.accuracy, "macro_f1": report.macro_f1}
    return {"rows": report.n_rows, **{name: round(value, 4) for name, value in figures.items()}}


def fitted(task: Task, config: PGKDConfig, changes: Mapping[str, Any], refit: bool) -> Predict:
    recipe = replace(recipe_for(config.student), **changes)
    student = TorchStudent(config.student, task.taxonomy, config.seed, recipe=recipe)
    fit_history(student, History.of(task.train), task.validation, 0, config.student.balance)
    if refit:
        rows = History.of((*task.train, *task.validation)).rows
        student.refit([*rows, *rows_again(rows, config.student.balance)], task.validation, 0)
    return student.predict


def static(task: Task, config: PGKDConfig) -> Predict:
    tokenizer = load_tokenizer(config.student.name)
    vectors = token_vectors(config.student.name, tokenizer.cls_token_id, tokenizer.sep_token_id)

    def embedded(texts: Sequence[str]) -> np.ndarray:
        inner = [ids[1:-1] or [tokenizer.unk_token_id] for ids in encode(tokenizer, texts, config.student.max_length)]
        return normalize(torch.stack([vectors[torch.tensor(ids)].mean(dim=0) for ids in inner])).numpy()

    head = LogisticRegression(C=10, max_iter=1000)
    head.fit(embedded(texts_of(task.train)), class_ids(task.train, task.taxonomy))

    def predict(texts: Sequence[str]) -> Probabilities:
        probabilities = np.full((len(texts), len(task.taxonomy)), 1e-9)
        probabilities[:, head.classes_] = head.predict_proba(embedded(texts))
        return probabilities

    return predict


@torch.inference_mode()
def token_vectors(name: str, first: int, last: int) -> torch.Tensor:
    """A vector for each token of the vocabulary, shape (vocabulary, STATIC_WIDTH)."""
    model = AutoModel.from_pretrained(resolve_source(name)).eval()
    parts = []
    for ids in torch.arange(model.config.vocab_size).split(512):
        batch = torch.stack([torch.full_like(ids, first), ids, torch.full_like(ids, last)], dim=1)
        parts.append(model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state.mean(dim=1))
    whole = torch.cat(parts)
    centered = whole - whole.mean(dim=0)
    _u, _s, directions = torch.linalg.svd(centered, full_matrices=False)
    rank = torch.arange(1, len(centered) + 1)
    return (centered @ directions[:STATIC_WIDTH].T) * torch.log(1 + rank)[:, None]


if __name__ == "__main__":
    main()
