"""A teacher that labels texts which are there already, of which the student chooses those that it needs.

python examples/label_texts.py --teacher openai:gpt-4o-mini
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pgkd_agent import DistillResult, PGKDConfig, build_config, distill, read_examples

DATA = Path(__file__).parent / "support_desk"
ROWS = read_examples(DATA / "train.jsonl")
LABELLED, OTHERS = ROWS[::2], ROWS[1::2]


def run(config: PGKDConfig) -> DistillResult:
    """Half of the rows have labels, the others are texts."""
    return distill(
        LABELLED,
        test=DATA / "test.jsonl",
        labels=DATA / "labels.json",
        unlabelled=[row.text for row in OTHERS],
        config=config,
    )


def share_right(result: DistillResult) -> tuple[int, float]:
    """How many texts were labelled, and the share that has the label that a person gave them."""
    gold = {row.text: row.label for row in OTHERS}
    labelled = [row for row in result.training.history.rows if row.source == "labelled"]
    return len(labelled), sum(gold[row.text] == row.label for row in labelled) / max(len(labelled), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", default="local:smollm2")
    parser.add_argument("--student", default="minilm")
    parser.add_argument("--labels", type=int, default=64)
    given = parser.parse_args()
    result = run(
        build_config(
            flags={
                "teacher.spec": given.teacher,
                "student.name": given.student,
                "pgkd.num_kd_steps": 1,
                "pgkd.pgkd_batch_size": 0,  # write nothing
                "pgkd.labels_per_step": given.labels,
            }
        )
    )
    print(result.summary.verdict)
    num, share = share_right(result)
    print(f"{num} texts labelled, {share:.0%} of them as people did")
