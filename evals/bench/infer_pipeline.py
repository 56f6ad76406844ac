"""Contender: transformers' `pipeline("text-classification", batch_size=64)`, in the order of the file."""

from __future__ import annotations

from transformers import pipeline

from evals.bench.common import emit, inference_options, measure_inference


def main() -> None:
    options = inference_options(__doc__).parse_args()
    classify = pipeline("text-classification", model=str(options.model), batch_size=64, truncation=True, device="cpu")
    emit(measure_inference(options, lambda texts: [row["label"] for row in classify(texts)]))


if __name__ == "__main__":
    main()
