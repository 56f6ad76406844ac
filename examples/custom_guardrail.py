"""A rule of your own for the teacher's samples: none may hold a telephone number or a mail address.

python examples/custom_guardrail.py --teacher local:smollm2
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from pgkd_agent import DistillResult, PGKDConfig, ScreenState, Teacher, build_config, distill

DATA = Path(__file__).parent / "support_desk"
CONTACT = re.compile(r"\d[\d ()/-]{6,}\d|\S+@\S+\.\w+")


def no_contact_data(text: str, label: str, state: ScreenState) -> str | None:
    """The reason for a rejection, or None; the text comes in lower case, with single spaces."""
    found = CONTACT.search(text)
    return f"holds contact data: {found.group()}" if found else None


def run(config: PGKDConfig, teacher: Teacher | None = None) -> DistillResult:
    return distill(
        DATA / "train.jsonl",
        test=DATA / "test.jsonl",
        labels=DATA / "labels.json",
        teacher=teacher,
        config=config,
        checks={"contact_data": no_contact_data},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", default="local:smollm2")
    parser.add_argument("--student", default="minilm")
    given = parser.parse_args()
    flags = {"teacher.spec": given.teacher, "student.name": given.student, "pgkd.num_kd_steps": 2}
    summary = run(build_config(flags=flags)).summary
    print(f"{summary.verdict}\nrejected by rule: {summary.samples.rejected}")
