"""Contender: ONNX Runtime by hand, as one would write it: batches of 64 in file order, padded to the longest."""

from __future__ import annotations

import numpy as np
import onnxruntime
from transformers import AutoConfig, AutoTokenizer

from evals.bench.common import emit, inference_options, measure_inference

BATCH_SIZE = 64


def main() -> None:
    options = inference_options(__doc__).parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    names = AutoConfig.from_pretrained(options.model).id2label
    session = onnxruntime.InferenceSession(str(options.model / "model.onnx"), providers=["CPUExecutionProvider"])

    def classify(texts: list[str]) -> list[str]:
        labels: list[str] = []
        for start in range(0, len(texts), BATCH_SIZE):
            batch = tokenizer(texts[start : start + BATCH_SIZE], truncation=True, padding=True, return_tensors="np")
            inputs = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            (logits,) = session.run(None, inputs)
            labels += [names[number] for number in logits.argmax(axis=1).tolist()]
        return labels

    emit(measure_inference(options, classify))


if __name__ == "__main__":
    main()
