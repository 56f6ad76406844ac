"""How much of the machine a fit of BERT-base's size uses: GFLOP/s against those of a matrix product, and memory.

Texts are random words of exactly `--tokens` tokens. Counted are the matrix products of the encoder, forward and twice
that backward (12 layers of BERT-base: about 0.5 GFLOP a token); embeddings, norms, softmax and the optimizer take time
and count nothing. The two validation rows that a fit needs are counted too, forward only. The ceiling is the best of
some square products in the precision that the fit computed in.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer

from evals.bench.common import EpochClock, emit, peak_gib
from pgkd_agent import Example, Label, build_config
from pgkd_agent.student.recipe import recipe_for
from pgkd_agent.student.student import TorchStudent

SIZES = (1024, 2048, 4096)
"""Of the square matrices."""
REPEATS = 5
SPECIAL_TOKENS = 2
"""At the ends of a text."""
VALIDATION_ROWS = 2


def forward_flops(config: object, rows: int, length: int) -> float:
    """Of the encoder's matrix products: the projections and the feed-forward block, and attention itself."""
    width, inner = config.hidden_size, config.intermediate_size  # type: ignore[attr-defined]
    weights = 4 * width * width + 2 * width * inner
    attention = 2 * length * width
    return 2.0 * config.num_hidden_layers * rows * length * (weights + attention)  # type: ignore[attr-defined]


def random_texts(tokenizer: object, number: int, tokens: int) -> list[str]:
    vocabulary = tokenizer.get_vocab()  # type: ignore[attr-defined]
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and word.islower())
    drawn = random.Random(0)
    return [" ".join(drawn.choices(words, k=tokens - SPECIAL_TOKENS)) for _ in range(number)]


def gemm_gflops(dtype: torch.dtype) -> float:
    best = 0.0
    for size in SIZES:
        left, right = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        left @ right
        for _ in range(REPEATS):
            started = time.perf_counter()
            left @ right
            best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="what make_bert_base wrote")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    texts = random_texts(AutoTokenizer.from_pretrained(options.model), options.rows + VALIDATION_ROWS, options.tokens)
    rows = [Example(text, "one" if number % 2 else "two") for number, text in enumerate(texts)]
    flags = {
        "student.name": str(options.model),
        "student.train_batch_size": options.batch_size,
        "student.max_epochs": options.epochs,
        "student.max_length": options.tokens,
        "student.device": "cpu",
    }
    clock: EpochClock
    settings = build_config(flags=flags).student
    recipe = replace(recipe_for(settings), patience=options.epochs)  # all epochs are timed
    student = TorchStudent(
        settings, (Label("one"), Label("two")), 1, lambda _epoch, _most, _loss: clock.tick(), recipe=recipe
    )
    clock = EpochClock()
    student.fit(rows[: options.rows], rows[options.rows :], kd_step=0)
    figures = clock.figures()
    figures["peak_gib"] = peak_gib()  # before the matrices of the ceiling
    bf16 = bool(student.description["bf16"])
    config = AutoConfig.from_pretrained(options.model)
    flops = 3 * forward_flops(config, options.rows, options.tokens) + forward_flops(
        config, VALIDATION_ROWS, options.tokens
    )
    ceiling = gemm_gflops(torch.bfloat16 if bf16 else torch.float32)
    achieved = flops / figures["seconds_per_epoch"] / 1e9
    emit(
        {
            **figures,
            "gflops": achieved,
            "gemm_gflops": ceiling,
            "share_of_ceiling": achieved / ceiling,
            "million_parameters": student.description["parameters"] / 1e6,
            "bf16": float(bf16),
        }
    )


if __name__ == "__main__":
    main()
