"""Load pretrained weights and tokenizer, and decide device and precision."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from pgkd_agent import embedded
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.fetching import ask_hub, is_cached, is_on_hub
from pgkd_agent.student.quiet import quiet_transformers
from pgkd_agent.types import Label, label_names

logger = logging.getLogger(__name__)


def resolve_source(name: str) -> str:
    """Return what transformers can load: a folder of the embedded model, a local folder, or a hub id.

    An embedded model that is not on this machine is taken from the hub, where there is one.

    Raises:
        ConfigError: The embedded model is not to be had, or a path does not exist.
    """
    if name in embedded.MODELS:
        hub_name = embedded.MODELS[name].hub_name
        if embedded.path_of(name) is None and hub_name and is_on_hub(hub_name):
            return hub_name
        return str(embedded.require(name))
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise ConfigError(f"student {name!r}: no such folder")
    return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name


def load_config(name: str) -> Any:
    """The model's configuration: from the local cache when it is there, else from the hub.

    Raises:
        ConfigError: Not found in either, no configuration of a model, or of one that does not classify texts.
    """
    config = _from_pretrained(AutoConfig, resolve_source(name), name)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ConfigError(
            f"student {name!r} is a {config.model_type} model, which has no sequence classifier; take an "
            "encoder such as bert-base-uncased or minilm"
        )
    return config


def is_classifier(config: Any) -> bool:
    """Whether these weights were saved with a head."""
    return any("ForSequenceClassification" in architecture for architecture in config.architectures or ())


def load_tokenizer(name: str) -> Any:
    tokenizer = _from_pretrained(AutoTokenizer, resolve_source(name), name)
    if tokenizer.pad_token_id is None:
        raise ConfigError(
            f"student {name!r} has no pad token, so texts cannot be batched; take an encoder such as "
            "bert-base-uncased or minilm"
        )
    return tokenizer


def load_model(name: str, taxonomy: tuple[Label, ...], seed: int, device: torch.device) -> Any:
    """Load the encoder with a fresh classification head, drawn from `seed`.

    Only a head that was trained for exactly these labels, in this order, is kept. The attention is `eager` on the
    CPU: the backward pass of the fused kernel is slow on short texts there. The label map goes into the model's
    config, so that `transformers` alone can use it.
    """
    names = label_names(taxonomy)
    torch.manual_seed(seed)
    source, old = resolve_source(name), load_config(name)
    model = _from_pretrained(
        AutoModelForSequenceClassification,
        source,
        name,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={label: index for index, label in enumerate(names)},
        problem_type="single_label_classification",
        ignore_mismatched_sizes=True,
        attn_implementation="eager" if device.type == "cpu" else "sdpa",
        dtype=torch.float32,
    )
    if is_classifier(old):
        model = _for_these_labels(model, old, names, source, name, seed)
    return model.to(device)


def _for_these_labels(model: Any, old: Any, names: tuple[str, ...], source: str, name: str, seed: int) -> Any:
    """Keep the head of a classifier of the same labels; make a fresh one where the labels are others.

    A head of another size is fresh already: transformers drops what does not fit.
    """
    old_names = tuple(old.id2label.get(index) for index in range(old.num_labels))
    if old_names == names:
        logger.info("student %s: a classifier of these labels, training goes on from its head", name)
        return model
    logger.info("student %s: a classifier of %d other labels, its head is replaced", name, len(old_names))
    if len(old_names) != len(names):
        return model
    encoder = _from_pretrained(AutoModel, source, name, dtype=torch.float32)
    torch.manual_seed(seed)
    fresh = AutoModelForSequenceClassification.from_config(model.config)
    fresh.base_model.load_state_dict(encoder.state_dict(), strict=False)
    return fresh


def choose_device(name: str) -> torch.device:
    """Resolve `auto` to CUDA, MPS or the CPU.

    Raises:
        ConfigError: The device does not exist here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not usable here: {str(error).splitlines()[0]}") from error
    return device


def use_bf16(setting: str, device: torch.device) -> bool:
    """Whether to compute in bf16 in training; emulated bf16 is slower than float32, so `auto` avoids it."""
    if setting != "auto":
        return setting == "on"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _from_pretrained(factory: Any, source: str, name: str, **kwargs: Any) -> Any:
    """Load from disk when possible; the network is asked only for a hub id that is not cached."""
    try:
        with quiet_transformers():
            is_folder = Path(source).is_dir()
            if is_folder or is_cached(source):
                try:
                    return factory.from_pretrained(source, local_files_only=True, **kwargs)
                except (OSError, ValueError, SafetensorError):
                    if is_folder:
                        raise
            ask_hub(source)
            logger.info("fetching student %s from the model hub", name)
            return factory.from_pretrained(source, **kwargs)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        students = [model.name for model in embedded.MODELS.values() if model.kind == "student"]
        raise ConfigError(
            f"student {name!r} cannot be loaded: it is neither a usable local folder nor to be had from the "
            f"model hub ({str(error).splitlines()[0]}); without a hub take a folder, or student "
            f"{' or '.join(students)} (`pgkd models get {students[0]}`)"
        ) from error
