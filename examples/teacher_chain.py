"""The teacher's chain by itself, without a student: prompt | chat model | parser, and a callback that sees each call.

python examples/teacher_chain.py damaged_item --teacher openai:gpt-4o-mini
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from pgkd_agent import WrittenSamples, build_config, open_chain

HERE = Path(__file__).parent


class Calls(BaseCallbackHandler):
    """Prints model, tokens and KD step of each call."""

    def __init__(self) -> None:
        self._kd_steps: dict[UUID, Any] = {}

    def on_chat_model_start(self, *_args: Any, run_id: UUID, metadata: dict[str, Any], **_kwargs: Any) -> None:
        self._kd_steps[run_id] = metadata["kd_step"]

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_kwargs: Any) -> None:
        message: Any = response.generations[0][0].message  # type: ignore[union-attr]
        model, usage = message.response_metadata["model_name"], message.usage_metadata or {}
        print(f"KD step {self._kd_steps.pop(run_id)}: {model}, {usage.get('total_tokens', 'unknown')} tokens")


def write(label: str, num_steps: int = 2, **flags: object) -> list[WrittenSamples]:
    """Three samples of a class in each step; the seed of a step's call derives from its number."""
    rows = [json.loads(line) for line in (HERE / "support_desk" / "train.jsonl").read_text("utf-8").splitlines()]
    values = {
        "target": {"name": label, "description": ""},
        "num_samples": 3,
        "few_shot": [row for row in rows if row["label"] == label][:4],
        "misclassified": [],  # what a student gets wrong, with `predicted_label`
        "classification_report": "not trained yet",
    }
    prompt = {"teacher.prompt": str(HERE / "house_style.j2"), "teacher.samples_per_request": 3}
    with open_chain([label], build_config(flags={**prompt, **flags})) as chain:
        steps = range(1, num_steps + 1)
        return [chain.invoke(values, {"callbacks": [Calls()], "metadata": {"kd_step": step}}) for step in steps]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("label")
    parser.add_argument("--teacher", default="local:smollm2")
    given = parser.parse_args()
    for written in write(given.label, **{"teacher.spec": given.teacher}):
        for sample in written.samples:
            print(f"{sample.label}: {sample.text}")
