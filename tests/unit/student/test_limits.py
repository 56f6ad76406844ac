"""How long a text may be, by family and by what its files say."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from pgkd_agent.student.limits import DEFAULT_LONGEST, longest_input, positions

# (family, settings of its configuration, tokens that it has positions for)
FAMILIES: list[tuple[str, dict[str, Any], int | None]] = [
    ("Bert", {}, 512),
    ("Roberta", {"max_position_embeddings": 514}, 512),
    ("XLMRoberta", {"max_position_embeddings": 514}, 512),
    ("Camembert", {"max_position_embeddings": 514}, 512),
    ("MPNet", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ("Longformer", {"max_position_embeddings": 4098}, 4096),
    ("GPT2", {}, 1024),
    ("XLNet", {}, None),
    ("T5", {}, None),
]


@pytest.mark.parametrize(("family", "settings", "expected"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_positions_by_family(family: str, settings: dict[str, Any], expected: int | None) -> None:
    config = getattr(transformers, f"{family}Config")(**settings)
    assert positions(config) == expected
    for limit, longest in ((int(1e30), expected or DEFAULT_LONGEST), (128, 128)):
        tokenizer = transformers.BertTokenizer(model_max_length=limit)
        assert longest_input(tokenizer, config) == longest
