"""Contender: a local LLM that classifies by itself, zero-shot, text by text; seconds are those of the calls alone.

The first call reads the instructions with all labels; later ones find them in the model's memory, as they would in use.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

from evals.bench.common import TEST_SEED, draw, emit, read_labels, read_rows
from pgkd_agent import Example, Label, build_config
from pgkd_agent.experiments.zero_shot import evaluate_zero_shot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", required=True, help="such as local:/path/model.gguf")
    parser.add_argument("--texts", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # which the teacher's process takes as its threads too
    rows = [Example(*row) for row in draw(read_rows(options.data / "test.jsonl"), options.texts, TEST_SEED)]
    flags = {
        "teacher.spec": options.teacher,
        "teacher.context_tokens": 8192,
        "teacher.max_concurrency": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.jsonl"
        taxonomy = tuple(map(Label, read_labels(options.data)))
        evaluate_zero_shot(rows, taxonomy, build_config(flags=flags), answers)
        replies = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()[1:]]
    seconds = [reply["seconds"] for reply in replies]
    emit(
        {
            "texts_per_second": len(seconds) / sum(seconds),
            "p50_ms": median(seconds) * 1000,
            "texts": float(len(seconds)),
        }
    )


if __name__ == "__main__":
    main()
