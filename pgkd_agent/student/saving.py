"""Save a classifier so that `transformers` alone can load it, never leaving half a model behind."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pgkd_agent.errors import StorageError
from pgkd_agent.student.quiet import quiet_transformers


def save_classifier(model: Any, tokenizer: Any, max_length: int, folder: Path) -> None:
    """Write safetensors, config with the label map, and tokenizer; `folder` is replaced whole.

    The tokenizer keeps `max_length`, so that any loader cuts texts where training did.

    Raises:
        StorageError: The disk is full or refuses; what was in `folder` before is still there.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    tokenizer = copy.copy(tokenizer)
    tokenizer.model_max_length = max_length
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        with quiet_transformers():
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise StorageError(f"the model cannot be written to {folder}: {error}") from error
