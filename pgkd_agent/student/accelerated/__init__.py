"""What makes a fit fast: embeddings of tokens that occur, a bf16 copy that computes, cheap dropout masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pgkd_agent.seeding import derive_seed
from pgkd_agent.student.accelerated.dropout import MaskPool, pooled_dropout
from pgkd_agent.student.accelerated.precision import Trainee
from pgkd_agent.student.accelerated.vocabulary import only_occurring_tokens
from pgkd_agent.student.batching import Encoded


@contextmanager
def accelerated(
    model: Any, padding: int, texts: tuple[Encoded, Encoded], bf16: bool, seed: int
) -> Iterator[tuple[Trainee, MaskPool]]:
    """What computes in place of the model: embeddings of tokens that occur, bf16 where asked for, cheap dropout.

    Args:
        padding: Id of the padding token.
        texts: Token ids of all texts of the fit, of training and validation.
        seed: Of the fit.
    Yields:
        The trainee, and the dropout masks, to be renewed with each epoch.
    """
    with only_occurring_tokens(model, padding, *texts):
        trainee = Trainee(model, bf16)
        try:
            with pooled_dropout(trainee.computing, derive_seed(seed, 0, "dropout")) as masks:
                yield trainee, masks
        finally:
            trainee.begin_step()  # leave no gradients behind
