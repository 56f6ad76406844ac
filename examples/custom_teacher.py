"""A teacher that is no LLM: any object with `write(request)`.

This one writes texts that begin like one row of a weak class and end like another.

python examples/custom_teacher.py
"""

from __future__ import annotations

import argparse
from itertools import islice, pairwise
from pathlib import Path

from pgkd_agent import DistillResult, GeneratedSample, PGKDConfig, TeacherReply, TeacherRequest, build_config, distill

DATA = Path(__file__).parent / "support_desk"


def mixed(first: str, second: str) -> str:
    """The first half of the one's words and the second half of the other's."""
    begin, end = first.split(), second.split()
    return " ".join([*begin[: len(begin) // 2], *end[len(end) // 2 :]])


class Mixer:
    model_id = "mixer"  # for the run's records

    def write(self, request: TeacherRequest) -> TeacherReply:
        f1 = {row.label: row.f1 for row in request.report.classes if row.has_data}
        weakest_first = sorted(request.train, key=lambda row: (f1.get(row.label, 0.0), row.label))
        offset = (request.kd_step - 1) * request.num_samples  # another part of the rows in each step
        pairs = ((one, other) for one, other in pairwise(weakest_first) if one.label == other.label)
        written = (GeneratedSample(mixed(one.text, other.text), one.label) for one, other in pairs)
        return TeacherReply(tuple(islice(written, offset, offset + request.num_samples)))


def run(config: PGKDConfig) -> DistillResult:
    return distill(
        DATA / "train.jsonl", test=DATA / "test.jsonl", labels=DATA / "labels.json", teacher=Mixer(), config=config
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--student", default="minilm")
    given = parser.parse_args()
    result = run(build_config(flags={"student.name": given.student, "pgkd.num_kd_steps": 2}))
    print(result.summary.verdict)
    print(result.summary.samples)
