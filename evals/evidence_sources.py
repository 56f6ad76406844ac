"""What each `evidence.source` costs, and how many mistakes of the student it finds.

    python evals/evidence_sources.py --train train.jsonl --labels labels.json

Runs the loop once per source over the same rows, with a teacher that writes fixed texts at once, so that all time is
the student's. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from pathlib import Path

from pgkd_agent import build_config
from pgkd_agent.pipeline import load_task, run
from pgkd_agent.types import GeneratedSample, TeacherReply, TeacherRequest

SOURCES = ("dynamics", "history", "out_of_fold")


class InstantTeacher:
    """Writes shuffled words of real rows under their label, and notes what it was shown."""

    def __init__(self) -> None:
        self.requests: list[TeacherRequest] = []

    def write(self, request: TeacherRequest) -> TeacherReply:
        self.requests.append(request)
        chosen = random.Random(request.kd_step)
        samples = []
        for row in chosen.sample(request.train, min(request.num_samples, len(request.train))):
            words = row.text.split()
            chosen.shuffle(words)
            samples.append(GeneratedSample(" ".join(words), row.label))
        return TeacherReply(tuple(samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--student", default="minilm")
    options = parser.parse_args()
    lines = []
    for source in SOURCES:
        flags = {
            "seed": options.seed,
            "data.rows": options.rows,
            "student.name": options.student,
            "student.soft_labels": 0.0,  # as the recorded figures
            "evidence.source": source,
            "pgkd.num_kd_steps": options.steps,
        }
        config = build_config(flags=flags)
        teacher = InstantTeacher()
        result = run(load_task(options.train, labels=options.labels, config=config), config, teacher)
        wrong = [
            f"{sum(item.gold_label != item.predicted_label for item in request.scored)}/{len(request.scored)}"
            for request in teacher.requests
        ]
        fit = statistics.median(step.student_seconds for step in result.training.steps)
        evidence = statistics.median(step.evidence_seconds for step in result.training.steps[1:])
        lines.append(f"| {source} | {fit:.1f} | {evidence:.2f} | {evidence / fit:.2f} | {', '.join(wrong)} |")
        sys.stderr.write(json.dumps({"source": source, "seconds": result.summary.seconds}) + "\n")
    sys.stdout.write("| source | s a fit | s for evidence, a step | of a fit | wrong rows found, by step |\n")
    sys.stdout.write("| --- | --- | --- | --- | --- |\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
