from __future__ import annotations

from io import StringIO

from rich.console import Console

from pgkd_agent.cli.display import say_gold
from pgkd_agent.loop.trust import GoldCheck, Suspect, Trust


def shown(check: GoldCheck) -> str:
    out = StringIO()
    say_gold(Console(file=out, width=200), check)
    return out.getvalue()


def check_with(num_suspects: int) -> GoldCheck:
    suspects = tuple(Suspect(f"[b]text {number}[/b] " + "x" * 100, "lost", "arrival") for number in range(num_suspects))
    return GoldCheck(64, 0.4, 0.45, 0.5, 0.3, 0.1, Trust(0.4, 0.5), suspects)


def test_labels_that_look_wrong_are_shown_for_a_person_to_decide() -> None:
    said = shown(check_with(7))
    assert "7 labels may be wrong" in said and "nothing is changed" in said
    assert said.count("lost, or arrival? [b]text") == 5 and "…" in said and "and 2 more" in said
    assert "1 label may be wrong" in shown(check_with(1)) and "more" not in shown(check_with(1))
    assert "may be wrong" not in shown(check_with(0))
