"""What is written where nobody sees a bar."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pgkd_agent.cli import terminal


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_log_has_a_line_a_phase_and_one_now_and_then(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [terminal._started + 61.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    log = terminal.Log(Console(file=file, force_terminal=is_terminal))
    log.begins("reading")
    for number in range(5):
        now[0] += 20.0
        log.goes_on(f"epoch {number}")
    lines = ["  1:01  reading", "  1:41  epoch 1", "  2:21  epoch 3"]
    assert file.getvalue().splitlines() == ([] if is_terminal else lines)
