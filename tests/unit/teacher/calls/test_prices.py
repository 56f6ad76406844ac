from __future__ import annotations

from pathlib import Path

import pytest

from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.types import TokenUsage

USAGE = TokenUsage(2_000_000, 100_000)


def test_tokens_times_price_and_unknown_is_not_free() -> None:
    prices = load_prices()
    assert prices.cost("bedrock_converse:anthropic.claude-3-sonnet-20240229-v1:0", USAGE) == pytest.approx(6 + 1.5)
    assert prices.cost("openai:gpt-of-tomorrow", USAGE) is None
    assert prices.cost("local:smollm2", USAGE) == 0


def test_every_shipped_price_names_its_source() -> None:
    assert all(price.source for price in load_prices().models.values())


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(
        "as_of: 2026-01-02\ncurrency: EUR\nmodels:\n  mine:x: {input_per_million: 1, output_per_million: 2}\n"
    )
    assert load_prices(file).cost("mine:x", USAGE) == pytest.approx(2.2)
    file.write_text("as_of: 2026-01-02\nmodels:\n  mine:x: {input_per_million: -1, output_per_million: 2}\n")
    with pytest.raises(ConfigError, match=r"mine:x\.input_per_million: input should be greater than or equal to 0"):
        load_prices(file)
    file.write_text("as_of: 2026-01-02\nmodel: {}\nmodels: {}\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'model' \(closest: 'models'\)"):
        load_prices(file)
