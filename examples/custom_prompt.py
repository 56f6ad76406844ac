"""A prompt of your own: checked first, then used, beside the package's.

python examples/custom_prompt.py --teacher local:smollm2
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pgkd_agent import DistillResult, build_config, distill, lint_prompt

HERE = Path(__file__).parent
PROMPT = HERE / "house_style.j2"
DATA = HERE / "support_desk"


def run(prompt: str, **flags: object) -> DistillResult:
    config = build_config(flags={"teacher.prompt": prompt, "pgkd.num_kd_steps": 2, **flags})
    return distill(DATA / "train.jsonl", test=DATA / "test.jsonl", labels=DATA / "labels.json", config=config)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--teacher", default="local:smollm2")
    parser.add_argument("--student", default="minilm")
    given = parser.parse_args()
    for finding in lint_prompt(str(PROMPT)):
        print(finding)
    for prompt in (str(PROMPT), "per_class"):
        result = run(prompt, **{"teacher.spec": given.teacher, "student.name": given.student})
        samples = result.summary.samples
        print(f"{prompt}: {samples.accepted} of {samples.asked} samples accepted; {result.summary.verdict}")
