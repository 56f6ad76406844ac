"""The student first, an LLM for what it is unsure of, and what that took.

python examples/cascade.py runs/demo/models/best examples/support_desk/test.jsonl --teacher openai:gpt-4o-mini
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pgkd_agent import Cascade, CascadeStats, StudentClassifier, build_config, open_llm, read_examples


def compare(
    model: Path, rows: Path, teacher: str, min_confidence: float, num_rows: int
) -> tuple[float, float, CascadeStats]:
    """Accuracy of the student by itself, of the cascade, and how often the LLM was asked."""
    examples = read_examples(rows)[:num_rows]
    texts = [row.text for row in examples]
    classifier = StudentClassifier.load(model)
    config = build_config(flags={"teacher.spec": teacher, "budget.max_calls": 200})
    with open_llm(classifier.taxonomy, config) as llm:
        cascade = Cascade(classifier, llm, min_confidence)
        routed = cascade.classify(texts)

    def accuracy(labels: list[str]) -> float:
        return sum(label == row.label for label, row in zip(labels, examples, strict=True)) / len(examples)

    return accuracy([item.student.label for item in routed]), accuracy([item.label for item in routed]), cascade.stats


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--teacher", default="local:smollm2")
    parser.add_argument("--min-confidence", type=float, default=0.5)
    parser.add_argument("--num-rows", type=int, default=100)
    given = parser.parse_args()
    alone, together, stats = compare(given.model, given.rows, given.teacher, given.min_confidence, given.num_rows)
    print(f"accuracy of the student {alone:.3f}, with {given.teacher} behind it {together:.3f}")
    print(f"asked about {stats.fallbacks} of {stats.texts} texts ({stats.fallback_share:.0%}), {stats.usage}")
