"""Where the time of a fit goes: the operations that take most of it, by themselves.

    python evals/profile_fit.py --train train.jsonl --labels labels.json

Two epochs of the plain student over the first rows; prints seconds an epoch without the profiler, then its table.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from pgkd_agent import build_config
from pgkd_agent.pipeline import load_task
from pgkd_agent.student.student import TorchStudent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--student", default="minilm")
    parser.add_argument("--operations", type=int, default=12)
    options = parser.parse_args()
    flags = {"student.name": options.student, "data.rows": options.rows, "seed": 1, "student.max_epochs": 2}
    flags["student.soft_labels"] = 0  # a copy of the weights less
    config = build_config(flags=flags)
    task = load_task(options.train, None, None, options.labels, config)
    ends: list[float] = []
    student = TorchStudent(config.student, task.taxonomy, 1, lambda *_: ends.append(time.perf_counter()))
    student.fit(task.train, task.validation, 0)
    sys.stdout.write(f"{len(task.train)} rows: {ends[1] - ends[0]:.2f} s an epoch, the first one left out\n")
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        student.fit(task.train, task.validation, 0)
    table = recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=options.operations)
    sys.stdout.write(f"{table}\n")


if __name__ == "__main__":
    main()
