"""Contender: frozen sentence embeddings, mean-pooled and of length 1, then scikit-learn's logistic regression.

Nothing of the encoder is trained, so it has no epochs.
"""

from __future__ import annotations

import time

from sklearn.linear_model import LogisticRegression

from evals.bench.common import TrainingData, emit, training_options
from evals.bench.embedding import load_body


def main() -> None:
    parser = training_options(__doc__)
    parser.add_argument("--inverse-penalty", type=float, default=10.0, help="C of the regression")
    options = parser.parse_args()
    data = TrainingData(options)
    body = load_body(options.model, options.max_length)
    texts = [text for text, _label in data.own]
    started = time.perf_counter()
    embeddings = body.encode(texts, normalize_embeddings=True)
    head = LogisticRegression(C=options.inverse_penalty, max_iter=1000).fit(embeddings, data.ids(data.own))
    seconds = time.perf_counter() - started
    tested = body.encode([text for text, _label in data.test], normalize_embeddings=True)
    quality = data.quality(head.predict_proba(tested).tolist(), head.classes_.tolist())
    emit({"seconds_total": seconds, **quality})


if __name__ == "__main__":
    main()
