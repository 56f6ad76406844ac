from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgkd_agent.errors import PromptError
from pgkd_agent.files import resource_folder
from pgkd_agent.teacher.prompting.attributes import draw_attributes, load_attributes

SHIPPED = load_attributes(resource_folder("prompts") / "pgkd" / "attributes.yaml")


def test_the_shipped_values_are_four_lists_of_some_length() -> None:
    assert list(SHIPPED) == ["style", "length", "subject", "speaker"]
    assert all(8 <= len(values) <= 15 for values in SHIPPED.values())


def test_every_value_of_every_attribute_is_drawn() -> None:
    drawn = draw_attributes(SHIPPED, 400, random.Random(0))
    for name, values in SHIPPED.items():
        assert {sample[name] for sample in drawn} == set(values)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=80)
def test_no_combination_comes_twice_before_all_came_once(sizes: list[int], count: int, seed: int) -> None:
    attributes = {f"attribute {n}": tuple(f"value {v}" for v in range(size)) for n, size in enumerate(sizes)}
    drawn = draw_attributes(attributes, count, random.Random(seed))
    assert len(drawn) == count and all(sample.keys() == attributes.keys() for sample in drawn)
    times = [drawn.count(sample) for sample in drawn]
    combinations = 1
    for size in sizes:
        combinations *= size
    assert all(count // combinations <= n <= -(-count // combinations) for n in times)
    assert drawn == draw_attributes(attributes, count, random.Random(seed))


def test_more_combinations_than_a_machine_counts_can_be_drawn_from() -> None:
    attributes = {f"attribute {number}": tuple(map(str, range(10))) for number in range(40)}
    drawn = draw_attributes(attributes, 50, random.Random(1))
    assert len({tuple(sample.values()) for sample in drawn}) == 50
    assert drawn == draw_attributes(attributes, 50, random.Random(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected attributes"),
        ("- plain", "holds a list, expected a mapping"),
        ("style: [plain", "cannot be read"),
        ("style: [2024-13-45]", "cannot be read: ValueError: month must be in"),  # a date, to YAML
        ("style: plain", "'style' is 'plain', expected a list"),
        ("style: []", "expected a list of at least one value"),
        ("style: [plain, yes]", "'style' lists True, expected a text; put it in quotes"),
        ("style: [plain, '  ']", "'style' lists '  ', expected a text"),
        ("style: [plain, dry, plain]", "'style' lists 'plain' 2 times, expected once"),
        ("7: [plain]", "found the attribute 7, expected a text; put it in quotes"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "attributes.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match=message) as caught:
        load_attributes(file)
    assert str(file) in str(caught.value)
