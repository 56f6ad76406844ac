"""Contender: transformers' `pipeline("text-classification", batch_size=64)`, in the order of the file."""

from __future__ import annotations

from transformers import pipeline

from evals.bench.common import emit, inference_options, measure_inference


def main() -> None:
    parser = inference_options(__doc__)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    classify = pipeline(
        "text-classification",
        model=str(options.model),
        batch_size=64,
        truncation=True,
        device="cpu",
        dtype=options.dtype,
    )
    emit(measure_inference(options, lambda texts: [row["label"] for row in classify(texts)]))


if __name__ == "__main__":
    main()
