"""Contender: sentence-transformers, the body tuned with a triplet loss, then scikit-learn's logistic regression.

For single sentences with a class its documentation names the batch triplet losses (`BatchAllTripletLoss` first) and the
sampler `GROUP_BY_LABEL`. Its rate (`--body-learning-rate`) is of another loss than ours, so it is the library's usual
one. The sampler leaves out rows of a class without a second one, and rows left over.
"""

from __future__ import annotations

import tempfile

from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers
from sklearn.linear_model import LogisticRegression
from transformers import set_seed

from evals.bench.callbacks import EpochTicks
from evals.bench.common import EpochClock, TrainingData, emit, training_options
from evals.bench.embedding import load_body


def main() -> None:
    options = training_options(__doc__).parse_args()
    data = TrainingData(options)
    set_seed(options.seed)
    body = load_body(options.model, options.max_length)
    texts, ids = [text for text, _label in data.own], data.ids(data.own)
    clock = EpochClock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.body_learning_rate,
            warmup_steps=0.1,
            batch_sampler=BatchSamplers.GROUP_BY_LABEL,
            seed=options.seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        SentenceTransformerTrainer(
            model=body,
            args=arguments,
            train_dataset=Dataset.from_dict({"sentence": texts, "label": ids}),
            loss=BatchAllTripletLoss(body),
            callbacks=[EpochTicks(clock)],
        ).train()
        head = LogisticRegression(max_iter=1000).fit(body.encode(texts), ids)
    figures = clock.figures()
    probabilities = head.predict_proba(body.encode([text for text, _label in data.test]))
    emit({**figures, **data.quality(probabilities.tolist(), head.classes_.tolist())})


if __name__ == "__main__":
    main()
