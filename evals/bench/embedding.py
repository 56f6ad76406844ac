"""A SentenceTransformer of an encoder's folder, with mean pooling whatever else lies in the folder."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer


def load_body(folder: Path, max_length: int) -> SentenceTransformer:
    transformer = Transformer(str(folder), max_seq_length=max_length)
    return SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")], device="cpu"
    )
