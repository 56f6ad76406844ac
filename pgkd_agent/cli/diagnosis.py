"""Whether what a run needs is there: looked at before anybody waits for it."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pgkd_agent import embedded, version
from pgkd_agent.cli.groups import as_options
from pgkd_agent.config import BudgetSettings, PGKDConfig, TeacherSettings
from pgkd_agent.errors import PGKDError
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import members
from pgkd_agent.text import counted

EXTRAS = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "plot": "matplotlib",
    "serve": "fastapi",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "wandb": "wandb",
}
"""A module of each extra; providers name theirs."""
LOW_DISK_BYTES = 4e9
"""A run keeps two models, each with its successor for a moment: of BERT-base 1.8 GB."""
REPLY_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Attributes:
        problem: What is wrong and what to do; empty where nothing is.
        exit_code: That a run would end with for it; 0 where it would not.
    """

    what: str
    found: str
    problem: str = ""
    exit_code: int = 0


def diagnose(config: PGKDConfig) -> Iterator[Finding]:
    """Look at machine, student and teachers of the settings, one after the other.

    A teacher whose provider has no free way to find out whether it answers is asked for one word.
    """
    yield _versions()
    yield from map(_disk, dict.fromkeys((Path.cwd(), _nearest(embedded.home()))))
    yield _extras()
    yield _embedded()
    yield _tried("device", lambda: _device(config))
    yield _threads()
    yield _tried("student", lambda: _student(config))
    for settings in members(config.teacher):
        yield _tried(f"teacher {settings.spec}", lambda settings=settings: _teacher(config, settings))  # type: ignore[misc]


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, look())
    except PGKDError as error:
        return Finding(what, "", as_options(str(error)), error.exit_code)


def _versions() -> Finding:
    from importlib import metadata

    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "langchain"))
    return Finding("versions", f"Python {sys.version.split()[0]}, pgkd-agent {version.VERSION}, {others}")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    problem = "little: a run with BERT-base needs 2 GB" if free < LOW_DISK_BYTES else ""
    return Finding("disk", f"{free / 1e9:.1f} GB free at {folder}", problem)


def _nearest(folder: Path) -> Path:
    """The folder, or what is there of the way to it."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _extras() -> Finding:
    from pgkd_agent.teacher.providers.registry import registered

    ours = [provider for provider in registered() if provider.install.startswith("pgkd-agent[")]
    extras = {provider.name: provider.module for provider in ours} | EXTRAS
    there = [extra for extra, module in extras.items() if importlib.util.find_spec(module)]
    missing = [extra for extra in extras if extra not in there]
    return Finding("extras", f"installed: {', '.join(there) or 'none'}; not: {', '.join(missing) or 'none'}")


def _embedded() -> Finding:
    there = [name for name in embedded.MODELS if embedded.path_of(name)]
    missing = [name for name in embedded.MODELS if name not in there]
    size = sum(embedded.MODELS[name].size_bytes for name in missing) / 1e6
    hint = f"; `pgkd models get {' '.join(missing)}` fetches the rest, {size:.0f} MB" if missing else ""
    return Finding("embedded models", f"{', '.join(there) or 'none'} in {embedded.home()}{hint}")


def _device(config: PGKDConfig) -> str:
    from pgkd_agent.student.loading import choose_device, use_bf16

    device = choose_device(config.student.device)
    precision = "bf16" if use_bf16(config.student.bf16, device) else "float32"
    return f"{device}, training computes in {precision}"


def _threads() -> Finding:
    import torch

    from pgkd_agent.machine import allowed_cpus
    from pgkd_agent.student.threads import limit_threads

    problem, cpus, threads = limit_threads(warns=False), allowed_cpus(), torch.get_num_threads()
    return Finding("threads", f"{counted(threads, 'thread')} on {counted(cpus, 'CPU')}", problem)


def _student(config: PGKDConfig) -> str:
    from pgkd_agent.student.loading import load_config, load_tokenizer
    from pgkd_agent.student.recipe import recipe_for

    loaded, recipe = load_config(config.student.name), recipe_for(config.student)
    load_tokenizer(config.student.name)
    rates = " or ".join(f"{rate:g}" for rate in recipe.learning_rates)
    return f"{config.student.name} ({loaded.model_type}), learning rate {rates}"


def _teacher(config: PGKDConfig, settings: TeacherSettings) -> str:
    from pgkd_agent.teacher.calls.models import open_models

    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(BudgetSettings(), load_prices(settings.prices))
        log = Path(folder) / "calls.sqlite"
        with open_models(None, [(settings, REPLY_TOKENS)], config.seed, budget, log) as (model,):
            model.caller.check()
            return f"answers; the form of its replies is asked for as {model.caller.chat.dialect.level}"
