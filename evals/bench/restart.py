"""The loop with an instant teacher, where each step's fit starts at the last weights or at the pretrained ones.

The teacher writes shuffled words of real rows at once, so that all time is the student's, and what differs is the
policy alone. Quality is that of the model with the lowest validation loss.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evals.bench.common import emit
from evals.evidence_sources import InstantTeacher
from pgkd_agent import build_config
from pgkd_agent.pipeline import load_task, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--policy", choices=("continue", "from_scratch"), required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    flags = {
        "seed": options.seed,
        "data.rows": options.rows,
        "data.test_rows": options.test_rows,
        "student.name": str(options.model),
        "student.restart": options.policy,
        "student.max_epochs": options.epochs,
        "student.soft_labels": 0.0,  # as the recorded figures
        "student.device": "cpu",
        "pgkd.num_kd_steps": options.steps,
        "pgkd.patience_limit": options.steps,
    }
    config = build_config(flags=flags)
    folder = options.data
    task = load_task(folder / "train.jsonl", test=folder / "test.jsonl", labels=folder / "labels.json", config=config)
    result = run(task, config, InstantTeacher())
    best = result.training.steps[result.training.best_step]
    assert result.summary.test is not None  # there are test rows
    later = result.training.steps[1:]
    emit(
        {
            "student_seconds": sum(step.student_seconds for step in result.training.steps),
            "seconds_per_later_fit": sum(step.student_seconds for step in later) / len(later),
            "epochs_per_later_fit": sum(step.epochs for step in later) / len(later),
            "validation_loss": best.validation.loss,
            "validation_accuracy": best.validation.report.accuracy,
            "accuracy": result.summary.test.after.report.accuracy,
            "macro_f1": result.summary.test.after.report.macro_f1,
            "best_step": float(result.training.best_step),
        }
    )


if __name__ == "__main__":
    main()
