"""Contender: SetFit's `predict`, with a model that train_setfit saved; its labels are another model's."""

from __future__ import annotations

from setfit import SetFitModel

from evals.bench.common import emit, inference_options, measure_inference


def main() -> None:
    options = inference_options(__doc__).parse_args()
    model = SetFitModel.from_pretrained(str(options.model), device="cpu")
    emit(measure_inference(options, lambda texts: [str(label) for label in model.predict(texts)]))


if __name__ == "__main__":
    main()
