"""Save a classifier so that `transformers` alone can load it, never leaving half a model behind."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pgkd_agent.errors import StorageError
from pgkd_agent.files import make_folder, replace_folder, settle_folder, sync_all
from pgkd_agent.student.checksums import write_checksums
from pgkd_agent.student.quiet import quiet_transformers


def save_classifier(model: Any, tokenizer: Any, max_length: int, folder: Path) -> None:
    """Write safetensors, config with the label map, and tokenizer; `folder` is replaced whole, and then on disk.

    The tokenizer keeps `max_length`, so that any loader cuts texts where training did.

    Raises:
        StorageError: The disk is full or refuses; what was in `folder` before is still there.
    """
    fresh = folder.with_name(folder.name + ".new")
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = max_length
    if tokenizer.is_fast:  # as its last texts left it: the files of one model would differ from run to run
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    try:
        settle_folder(folder)
        make_folder(fresh)
        with quiet_transformers():
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
        write_checksums(fresh)
        sync_all(fresh)
        replace_folder(fresh, folder)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            settle_folder(folder)
        raise StorageError(f"the model cannot be written to {folder}: {error}") from error
