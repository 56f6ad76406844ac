"""What a teacher's tokens cost: a dated table that a user can replace."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pgkd_agent.config import explain, read_yaml
from pgkd_agent.errors import ConfigError
from pgkd_agent.types import TokenUsage

SHIPPED = Path(__file__).with_name("prices.yaml")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelPrice(_Record):
    """What a model asks for."""

    input_per_million: float = Field(ge=0)
    """For a million tokens of prompts."""
    output_per_million: float = Field(ge=0)
    """For a million tokens of replies."""
    source: str = ""
    """Where the price was read."""


class PriceTable(_Record):
    """Prices of teachers."""

    as_of: date
    """When the prices held."""
    currency: str = "USD"
    """Of all prices in the table."""
    batch_factor: float = Field(default=0.5, ge=0, le=1)
    """What tokens of batch jobs cost, as a share of these prices."""
    models: dict[str, ModelPrice]
    """By teacher as it is named in the settings, e.g. `openai:gpt-4o-mini`."""

    def cost(self, teacher: str, usage: TokenUsage) -> float | None:
        """What the tokens cost; None where price or tokens are not known. A `local:` teacher asks for nothing."""
        if teacher.startswith("local:"):
            return 0.0
        price = self.models.get(teacher)
        if price is None or not usage.is_known:
            return None
        less = 1 - self.batch_factor
        tokens_in = usage.input_tokens - less * usage.batch_input_tokens
        tokens_out = usage.output_tokens - less * usage.batch_output_tokens
        return (tokens_in * price.input_per_million + tokens_out * price.output_per_million) / 1e6


def load_prices(file: Path | None = None) -> PriceTable:
    """Read a price table; None reads the one that comes with the package.

    Raises:
        ConfigError: The file cannot be read, or is no price table.
    """
    path = file or SHIPPED
    try:
        return PriceTable.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"price table {path}: {explain(error, PriceTable)}") from error
