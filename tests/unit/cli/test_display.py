from __future__ import annotations

from io import StringIO

from rich.console import Console

from pgkd_agent.cli.display import say_gold
from pgkd_agent.loop.trust import GoldCheck, GoldRow, Trust


def shown(check: GoldCheck) -> str:
    out = StringIO()
    say_gold(Console(file=out, width=200), check)
    return out.getvalue()


def check_with(num_suspects: int) -> GoldCheck:
    texts = (f"[b]text {number}[/b] " + "x" * 100 for number in range(num_suspects))
    suspects = [
        GoldRow(text, "lost", rows_alone="arrival", teacher="arrival", together="lost", gain=0) for text in texts
    ]
    fine = GoldRow("where is it", "lost", rows_alone="arrival", teacher="lost", together="lost", gain=1)
    return GoldCheck((*suspects, fine), Trust(0.4, 0.5))


def test_labels_that_look_wrong_are_shown_for_a_person_to_decide() -> None:
    said = shown(check_with(7))
    assert "7 labels may be wrong" in said and "nothing is changed" in said
    assert said.count("lost, or arrival? [b]text") == 5 and "…" in said and "and 2 more" in said
    assert "1 label may be wrong" in shown(check_with(1)) and "more" not in shown(check_with(1))
    assert "may be wrong" not in shown(check_with(0))
