"""Read configuration, tokenizer and weights with transformers: only data, never code, and only weights that fit."""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pgkd_agent import embedded
from pgkd_agent.errors import ConfigError
from pgkd_agent.files import MODEL, nearest
from pgkd_agent.student.quiet import quiet_transformers
from pgkd_agent.text import shorten

CONFIG_FILE = "config.json"
EXAMPLE = ", e.g. runs/NAME/models/best"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In the order in which transformers looks for them."""
READ = ("*.json", "model*.safetensors", "pytorch_model*.bin")
"""Files that transformers may have read; a large model has its weights in several."""
CODE = {"AutoConfig", "AutoModel", "AutoModelForSequenceClassification"}
"""What a model with code of its own says that it has it for."""
FEW_TOKENS, BLANK = 1000, "\u2581"
"""A vocabulary without words is smaller, and holds this at most beside special tokens: the mark of a new word."""
SHOWN = 3
"""Names of weights in a message."""
MOST_CHARS = 200
"""Of a library's own message."""


def model_folder(path: Path) -> Path:
    """The folder itself, or the best model of a run directory.

    Raises:
        ConfigError: There is no such folder, or no model in it.
    """
    path = path.expanduser()
    for folder in (path, path / "models" / "best"):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if path.is_dir():
        raise ConfigError(
            f"{path} is no model folder: expected one with a {CONFIG_FILE} in it{nearest(path, MODEL) or EXAMPLE}"
        )
    if str(path) in embedded.MODELS:
        raise ConfigError(
            f"{path} is to be trained before it answers: name the folder of a run with it, e.g. runs/NAME"
        )
    raise ConfigError(f"{path}: no such folder; expected one with a model{nearest(path, MODEL) or EXAMPLE}")


def read(factory: Any, source: str | Path, what: str, **kwargs: Any) -> Any:
    """Call `factory.from_pretrained` without notices.

    Args:
        what: Subject of a message.
    Raises:
        ConfigError: Nothing usable is there, or it needs code of its own.
        OSError: It is not on this machine, where `source` is none of its folders.
    """
    try:
        with quiet_transformers():
            return factory.from_pretrained(source, trust_remote_code=False, **kwargs)
    except Exception as error:  # transformers, the tokenizers and the readers of weights have none in common but this
        if isinstance(error, OSError) and not Path(source).is_dir():
            raise
        if "trust_remote_code" in str(error):
            raise ConfigError(_needs_code(what)) from error
        raise ConfigError(f"{what} cannot be loaded: {_reason(error, Path(source), factory)}") from error


def read_config(source: str | Path, what: str, **kwargs: Any) -> Any:
    """
    Raises:
        ConfigError: See `read`; also for a model that has code of its own beside what transformers has for its type.
    """
    config = read(AutoConfig, source, what, **kwargs)
    if CODE & {*(getattr(config, "auto_map", None) or {})}:
        raise ConfigError(_needs_code(what))
    return config


def read_tokenizer(source: str | Path, what: str, **kwargs: Any) -> Any:
    """
    Raises:
        ConfigError: See `read`; also where its files are missing, from which transformers makes one that knows no
            word, or where it has no pad token.
    """
    tokenizer = read(AutoTokenizer, source, what, **kwargs)
    if tokenizer.init_kwargs.get("auto_map"):
        raise ConfigError(_needs_code(what))
    if len(tokenizer) < FEW_TOKENS and {*tokenizer.get_vocab()} <= {*tokenizer.all_special_tokens, BLANK}:
        raise ConfigError(
            f"{what}: its tokenizer knows no word; the files of the tokenizer are missing beside the weights"
        )
    if tokenizer.pad_token_id is None:
        raise ConfigError(
            f"{what} has no pad token, so texts cannot be batched; take an encoder such as "
            "bert-base-uncased or minilm, or give its tokenizer one"
        )
    return tokenizer


def read_classifier(source: str | Path, what: str, *, is_trained: bool, **kwargs: Any) -> Any:
    """A sequence classifier in float32.

    Args:
        is_trained: Whether it is to answer as it is, so that each of its weights has to be there; else only those of
            its encoder, and what else does not fit is drawn anew.
    Raises:
        ConfigError: See `read`; also where weights are missing or do not fit.
    """
    model, loading = read(
        AutoModelForSequenceClassification,
        source,
        what,
        dtype=torch.float32,
        weights_only=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **kwargs,
    )
    encoder, problems = f"{model.base_model_prefix}.", _problems(loading)
    for key in [*problems]:
        is_unused = key in loading["unexpected_keys"]
        is_of_encoder = key.startswith(encoder) and not _is_pooler(key)
        if is_trained:  # what is left over of another head is not asked; of an encoder it says that layers are lost
            is_fine = is_unused and (_is_pooler(key) or not key.startswith(encoder))
        else:
            is_fine = is_unused or not is_of_encoder
        if is_fine:
            del problems[key]
    if problems:
        raise ConfigError(f"{what} {_misfit(problems, loading, encoder)}")
    return model


def read_encoder(source: str | Path, what: str, **kwargs: Any) -> Any:
    """The encoder of a model in float32, without any head.

    Raises:
        ConfigError: See `read_classifier`.
    """
    loaded = {"dtype": torch.float32, "weights_only": True, "output_loading_info": True}
    model, loading = read(AutoModel, source, what, **loaded, **kwargs)
    if missing := {key: "is missing" for key in sorted(loading["missing_keys"]) if not _is_pooler(key)}:
        raise ConfigError(f"{what} {_misfit(missing, loading, '')}")
    return model


def _problems(loading: dict[str, Any]) -> dict[str, str]:
    """By the name of a weight, in words."""
    found = dict.fromkeys(loading["missing_keys"], "is missing")
    found |= dict.fromkeys(loading["unexpected_keys"], "has no place in it")
    for key, there, wanted in loading["mismatched_keys"]:
        found[key] = f"is of shape {tuple(there)}, expected {tuple(wanted)}"
    return dict(sorted(found.items()))


def _is_pooler(key: str) -> bool:
    """Of an encoder: some classifiers have one before their head, others leave it out."""
    return "pooler." in key


def _misfit(problems: dict[str, str], loading: dict[str, Any], encoder: str) -> str:
    for key in problems:
        if key in loading["missing_keys"]:
            end = f".{key.removeprefix(encoder)}"
            if other := next((name for name in sorted(loading["unexpected_keys"]) if name.endswith(end)), None):
                return f"holds weights under other names: {other} where {key} is expected; save them under those"
    shown = ", ".join(f"{key} {how}" for key, how in [*problems.items()][:SHOWN])
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    if any(key.startswith(encoder) or key in loading["unexpected_keys"] for key in problems):
        return f"holds other weights than its configuration says: {shown}{more}; get the whole folder anew"
    return f"has no trained head: {shown}{more}; `pgkd train` gives it one, where it is the student"


def _needs_code(what: str) -> str:
    return f"{what} brings code of its own (auto_map), which is never run here; take a model that transformers knows"


def _reason(error: Exception, folder: Path, factory: Any) -> str:
    lines = str(error).strip().splitlines()
    reason = shorten(lines[0], MOST_CHARS) if lines else type(error).__name__
    if isinstance(error, UnpicklingError):  # its own message tells how to run what is in there
        reason = "it holds something else than tensors, or is damaged"
    names = [name for pattern in READ for name in sorted(folder.glob(pattern))]
    file = next(filter(_is_damaged, names), None)
    if file is None and factory is AutoModelForSequenceClassification:
        file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    return f"{file}: {reason}" if file and str(file) not in reason else reason


def _is_damaged(file: Path) -> bool:
    """Looked at once something is wrong, to say where."""
    try:
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        elif file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
        else:
            torch.load(file, map_location="meta", weights_only=True)
    except Exception:  # as in `read`
        return True
    return False
