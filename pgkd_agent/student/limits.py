"""How much a model takes: tokens of a text, and the ids of its vocabulary."""

from __future__ import annotations

from typing import Any

from pgkd_agent.errors import ConfigError

OFFSET_POSITIONS = (
    "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "mpnet", "longformer", "ibert",
    "data2vec-text", "xmod", "luke", "mluke", "lilt", "markuplm", "layoutlmv3", "esm",
)  # fmt: skip
"""Types of models that count positions from behind their pad token: 514 of them are for 512 tokens."""
DEFAULT_LONGEST = 512
"""Tokens, of a model with relative positions whose tokenizer knows no limit either."""


def positions(config: Any) -> int | None:
    """Tokens that a model has positions for; None where it names no limit, as with relative ones."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    if not found or found < 0:  # XLNet says -1
        return None
    return found - (config.pad_token_id or 0) - 1 if config.model_type in OFFSET_POSITIONS else found


def longest_input(tokenizer: Any, config: Any) -> int:
    """Tokens a text is cut at: what both take; a tokenizer without a limit says a huge number."""
    return int(min(tokenizer.model_max_length, positions(config) or DEFAULT_LONGEST))


def bind(tokenizer: Any, config: Any, what: str = "the model") -> None:
    """Let the tokenizer know how much the model takes, and the model which token is padding, where they do not yet.

    Args:
        what: Subject of a message.
    Raises:
        ConfigError: The tokenizer has tokens that the model has no embedding of.
    """
    known = getattr(config, "vocab_size", None)
    ids = max([tokenizer.vocab_size - 1, *tokenizer.added_tokens_decoder]) + 1
    if known and ids > known:
        raise ConfigError(
            f"{what} has embeddings of {known} tokens, and its tokenizer {ids}: tokens were added; call "
            "model.resize_token_embeddings(len(tokenizer)) and save it anew"
        )
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions(config) or tokenizer.model_max_length)
