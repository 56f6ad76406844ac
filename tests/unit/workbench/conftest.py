"""Runs to look at, and a browser's requests without a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pgkd_agent.cli.listening import LOOPBACK
from pgkd_agent.workbench.app import create_app
from tests.unit.workbench.made import make_run

OWN = {"origin": "http://127.0.0.1:8001"}
"""What a browser says of a request by a page of the workbench."""

Client = Callable[[Path], TestClient]


@pytest.fixture
def client() -> Client:
    """The workbench over a folder."""
    return lambda folder: TestClient(create_app(folder, LOOPBACK), base_url=OWN["origin"])


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that helped and one that harmed; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "helped")
    make_run(folder / "harmed", skills=(0.3, 0.6, 0.9), test_skills=(0.9, 0.6, 0.3), **{"student.max_epochs": 3})
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that helped, alone in its folder."""
    shutil.copytree(made / "helped", tmp_path / "runs" / "one")
    return tmp_path / "runs" / "one"
