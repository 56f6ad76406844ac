from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgkd_agent.seeding import derive_seed, rng

PLACES = st.tuples(st.integers(0, 2**40), st.integers(0, 50), st.text(max_size=12))


@given(PLACES, PLACES)
def test_a_seed_belongs_to_its_place_alone(one: tuple[int, int, str], other: tuple[int, int, str]) -> None:
    assert 0 <= derive_seed(*one) < 2**31
    assert derive_seed(*one) == derive_seed(*one)
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert rng(*one).random() == rng(*one).random()


def test_seeds_stay_the_same_from_version_to_version() -> None:
    """Stored runs are replayed by them."""
    assert (derive_seed(0, 1, "fit"), derive_seed(7, 3, "request/2/0")) == (1810751670, 1290878505)
