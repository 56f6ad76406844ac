"""The files in schemas/ are those of the models."""

from __future__ import annotations

import pytest

from pgkd_agent.resources import resource_folder
from pgkd_agent.schemas import render, schemas


@pytest.mark.parametrize("name", list(schemas()))
def test_the_file_is_up_to_date(name: str) -> None:
    assert (resource_folder("schemas") / name).read_text(encoding="utf-8") == render(schemas()[name]), "make schemas"


def test_there_are_no_others() -> None:
    assert {path.name for path in resource_folder("schemas").glob("*.json")} == set(schemas())
