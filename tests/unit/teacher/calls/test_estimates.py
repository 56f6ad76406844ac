from __future__ import annotations

from pgkd_agent.teacher.calls.estimates import estimate_run
from pgkd_agent.teacher.calls.prices import PriceTable
from tests.unit.teacher.calls.test_budget import PRICES

TWO_PRICES = PriceTable.model_validate(
    {
        "as_of": "2026-01-01",
        "models": {
            "m": {"input_per_million": 1.0, "output_per_million": 1.0},
            "n": {"input_per_million": 3.0, "output_per_million": 1.0},
        },
    }
)


def test_a_step_is_extrapolated_and_priced_at_both_ends() -> None:
    result = estimate_run(["m"], 10, [100, 200], [150, 250], (40, 90), PRICES)
    assert (result.calls, result.input_tokens, result.output_tokens) == (20, (3000, 4000), (400, 900))
    assert result.cost == ((3000 + 400 * 10) / 1e6, (4000 + 900 * 10) / 1e6)
    assert str(result) == "20 calls, 3000 to 4000 tokens in, 400 to 900 out, 0.0070 to 0.0130 USD"


def test_an_unknown_price_is_unknown_and_a_local_model_is_free() -> None:
    known = estimate_run(["m"], 1, [5], [5], (1, 2), PRICES)
    assert "5 tokens in" in str(known)
    unknown = estimate_run(["m", "other"], 1, [5], [5], (1, 2), PRICES)
    assert unknown.cost is None and str(unknown).endswith("price not known")
    assert str(estimate_run(["local:x"], 1, [5], [5], (1, 2), PRICES)).endswith("no charge")


def test_of_several_teachers_the_cheapest_and_the_dearest_set_the_range() -> None:
    both = estimate_run(["m", "n"], 1, [1_000_000], [1_000_000], (0, 0), TWO_PRICES)
    assert both.cost == (1.0, 3.0)
    with_free = estimate_run(["local:x", "n"], 1, [1_000_000], [1_000_000], (0, 0), TWO_PRICES)
    assert with_free.cost == (0.0, 3.0)
