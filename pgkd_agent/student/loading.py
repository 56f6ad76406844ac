"""Load pretrained weights and tokenizer, and decide device and precision."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

from pgkd_agent import embedded
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.checksums import check_model
from pgkd_agent.student.fetching import ask_hub, is_cached, is_on_hub
from pgkd_agent.student.pretrained import model_folder, read_classifier, read_config, read_encoder, read_tokenizer
from pgkd_agent.types import Label, label_names

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"(?![.~])[\w.-]+(/[\w.-]+)?")


def resolve_source(name: str) -> str:
    """Return what transformers can load: a folder of the embedded model, a local one (a run's best model), or a hub id.

    An embedded model that is not on this machine is taken from the hub, where there is one.

    Raises:
        ConfigError: The embedded model is not to be had, a path does not exist, or the model there is damaged.
    """
    if name in embedded.MODELS:
        hub_name = embedded.MODELS[name].hub_name
        if embedded.path_of(name) is None and hub_name and is_on_hub(hub_name):
            return hub_name
        return str(embedded.require(name))
    path = Path(name).expanduser()
    if path.is_dir():
        folder = model_folder(path)
        check_model(folder)
        return str(folder)
    if path.exists() or _HUB_ID.fullmatch(name) is None:
        found = "is a file, expected a folder" if path.exists() else "no such folder"
        raise ConfigError(f"student {name!r}: {found}; a name on the model hub has the form NAME or OWNER/NAME")
    return name


def load_config(name: str) -> Any:
    """The model's configuration: from the local cache when it is there, else from the hub.

    Raises:
        ConfigError: Not found in either, no configuration of a model, or of one that does not classify texts.
    """
    config = _from_pretrained(read_config, name)
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
    """
    Raises:
        ConfigError: It cannot be had, or knows no word or no padding.
    """
    return _from_pretrained(read_tokenizer, name)


def load_model(name: str, taxonomy: tuple[Label, ...], seed: int, device: torch.device) -> Any:
    """Load the encoder with a fresh classification head, drawn from `seed`.

    Only a head that was trained for exactly these labels, in this order, is kept. The attention is `eager` on the
    CPU: the backward pass of the fused kernel is slow on short texts there. The label map goes into the model's
    config, so that `transformers` alone can use it.

    Raises:
        ConfigError: It cannot be had, or the encoder's own weights are not those of its configuration.
    """
    names = label_names(taxonomy)
    torch.manual_seed(seed)
    old = load_config(name)
    model = _from_pretrained(
        read_classifier,
        name,
        is_trained=False,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={label: index for index, label in enumerate(names)},
        problem_type="single_label_classification",
        attn_implementation="eager" if device.type == "cpu" else None,
    )
    model.config.__dict__.pop("function_to_apply", None)  # of what it was before
    if is_classifier(old):
        model = _for_these_labels(model, old, names, name, seed)
    return model.to(device)


def _for_these_labels(model: Any, old: Any, names: tuple[str, ...], name: str, seed: int) -> Any:
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
    torch.manual_seed(seed)
    fresh = AutoModelForSequenceClassification.from_config(model.config)
    fresh.base_model.load_state_dict(model.base_model.state_dict())
    return fresh


def load_encoder(name: str) -> Any:
    """The encoder alone, in float32 on the CPU.

    Raises:
        ConfigError: See `load_model`.
    """
    return _from_pretrained(read_encoder, name)


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


def _from_pretrained(read: Callable[..., Any], name: str, **kwargs: Any) -> Any:
    """Load from disk when possible; the network is asked only for a hub id that is not cached."""
    source, what = resolve_source(name), f"student {name!r}"
    if Path(source).is_dir():
        return read(source, what, local_files_only=True, **kwargs)
    try:
        if is_cached(source):
            with suppress(OSError):
                return read(source, what, local_files_only=True, **kwargs)
        ask_hub(source)
        logger.info("fetching %s from the model hub", what)
        return read(source, what, **kwargs)
    except (OSError, ValueError) as error:
        students = [model.name for model in embedded.MODELS.values() if model.kind == "student"]
        raise ConfigError(
            f"{what} cannot be loaded: it is neither a usable local folder nor to be had from the "
            f"model hub ({str(error).splitlines()[0]}); without a hub take a folder, or student "
            f"{' or '.join(students)} (`pgkd models get {students[0]}`)"
        ) from error
