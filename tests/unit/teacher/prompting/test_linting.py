from __future__ import annotations

from pathlib import Path

import pytest

from pgkd_agent.teacher.prompting.linting import lint_prompt
from pgkd_agent.teacher.prompting.templates import VARIABLES, list_prompts
from tests.unit.teacher.prompting.test_templates import UNREADABLE, UNRENDERABLE

GOOD = "Human:\n{{ num_samples }} {{ target.name }}\n{% for row in few_shot %}\n{{ row | json }}\n{% endfor %}\n"


def errors(folder: Path, source: str, purpose: str = "pgkd") -> list[str]:
    file = folder / purpose / "mine.j2"
    file.parent.mkdir(exist_ok=True)
    file.write_text(source, encoding="utf-8")
    by_name, by_path = (
        lint_prompt(variant, "pgkd" if purpose == "pgkd" else "zero_shot", folder) for variant in ("mine", str(file))
    )
    assert by_name == by_path
    return [finding.message for finding in by_name if finding.is_error]


@pytest.mark.parametrize(("purpose", "variant"), [(p, name) for p in VARIABLES for name in list_prompts(p)])
def test_the_shipped_variants_have_no_errors(purpose: str, variant: str) -> None:
    remarks = lint_prompt(variant, purpose)
    assert all(not remark.is_error and remark.message.startswith("does not use ") for remark in remarks)
    assert len(remarks) == (variant != "few_shot")  # which uses all that there is


def test_what_a_template_leaves_out_is_a_remark() -> None:
    (remark,) = lint_prompt("no_hard_negatives")
    assert "hard_negatives" in remark.message and "classification_report" not in remark.message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GOOD, []),
        (GOOD + "{% if correct %}", ["line 6: Unexpected end of template"]),
        (GOOD + "\n{{ correkt }}", ["line 7: unknown variable 'correkt' (closest: 'correct')"]),
        (GOOD + "{{ zzz }}\n{{ zzz }}", ["line 6: unknown variable 'zzz' (there are: taxonomy, "]),
        (GOOD + "{{ text }}", ["line 6: unknown variable 'text'"]),  # of the other purpose
        ("{{ target.name }}", ["uses no num_samples, but needs it"]),
        ("{{ num_samples }}", ["uses no taxonomy and no target, but needs one of them"]),
        ("{{ num_samples }}{{ taxonomy }}{{ rival.name }}", ["uses rival without target"]),
        (GOOD.replace("row |", "row.txt |"), ["human message, line 4: 'dict object' has no attribute 'txt'"]),
        (GOOD + "{{ num_samples | jsn }}", ["line 6: No filter named 'jsn'"]),
        (GOOD + "{{ num_samples is neat }}", ["line 6: No test named 'neat'"]),
        (GOOD + "{{ '%(a)s' % {} }}", ["human message, line 6: KeyError: 'a'"]),
        (GOOD + "{{ rival.nmae }}", ["human message, line 6: 'dict object' has no attribute 'nmae'"]),
        (GOOD + "{{ attributes[0] + 1 }}", ["human message, line 6: TypeError: unsupported operand"]),
        (GOOD + "{{ correct[0].text }}", ["without rows: human message, line 6: list object has no element 0"]),
        (GOOD + "{{ row }}", ["line 3 sets 'row' for a loop or block, but it is used outside of that too"]),
        (GOOD + "{% if correct %}\nHuman:\n{% endif %}", ["human message, line 6: Unexpected end of template"]),
        (GOOD.replace("Human", "System"), ["has no text under Human:"]),
        ("{# {{ num_samples }} {{ target }} #}", ["uses no num_samples", "uses no taxonomy", "renders to nothing"]),
        ("{{ num_sample }}", ["line 1: unknown variable", "uses no num_samples", "uses no taxonomy"]),
    ],
)
def test_each_kind_of_mistake_is_found(tmp_path: Path, source: str, expected: list[str]) -> None:
    found = errors(tmp_path, source)
    assert len(found) == len(expected)
    for message, beginning in zip(found, expected, strict=True):
        assert message.startswith(beginning)


@pytest.mark.parametrize(("source", "message"), [*UNREADABLE, *UNRENDERABLE])
def test_whatever_a_template_raises_is_a_finding(tmp_path: Path, source: str, message: str) -> None:
    found = " ".join(errors(tmp_path, source))
    assert message.removeprefix("prompt 'mine'").lstrip(",: ") in found
    assert "<template>" not in found


def test_what_one_template_does_to_the_made_up_values_is_not_seen_by_the_next(tmp_path: Path) -> None:
    taking = GOOD + "{{ few_shot.pop().text if few_shot }}{{ target.pop('name') }}"
    assert errors(tmp_path, taking) == errors(tmp_path, GOOD) == []


def test_a_zero_shot_template_needs_the_text_and_the_classes(tmp_path: Path) -> None:
    assert errors(tmp_path, "{{ text }}{{ taxonomy[0].name }}", "zero_shot") == []
    assert errors(tmp_path, "{{ task_description }}", "zero_shot") == [
        "uses no text, but needs it",
        "uses no taxonomy, but needs it",
        "without rows: renders to nothing",
    ]
    assert "unknown variable 'target'" in errors(tmp_path, "{{ text }}{{ taxonomy }}{{ target }}", "zero_shot")[0]


def test_what_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (finding,) = lint_prompt("no_such")
    assert finding.is_error and "no prompt 'no_such'" in finding.message
    (tmp_path / "pgkd").mkdir()
    (tmp_path / "pgkd" / "attributes.yaml").write_text("style: plain", encoding="utf-8")
    assert any("expected a list" in finding.message for finding in lint_prompt("attributes", folder=tmp_path))
    assert not any(finding.is_error for finding in lint_prompt("per_class", folder=tmp_path))
