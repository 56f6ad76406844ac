"""Contender: `StudentClassifier`, by engine and precision."""

from __future__ import annotations

from evals.bench.common import emit, inference_options, measure_inference
from pgkd_agent import StudentClassifier


def main() -> None:
    parser = inference_options(__doc__)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    classifier = StudentClassifier.load(options.model, "cpu", engine=options.engine, precision=options.precision)
    emit(measure_inference(options, lambda texts: [item.label for item in classifier.classify(texts)]))


if __name__ == "__main__":
    main()
