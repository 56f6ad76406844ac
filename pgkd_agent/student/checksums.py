"""What the files of a model were when it was saved, so that a damaged one is not taken for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pgkd_agent.errors import ConfigError
from pgkd_agent.files import write_whole
from pgkd_agent.metrics.calibration import CALIBRATION_FILE

CHECKSUMS_FILE = "checksums.json"
"""In a model folder: the SHA-256 of each of its files by name."""


def write_checksums(folder: Path) -> None:
    """Of all files that are in a model folder now.

    Raises:
        StorageError: The disk refuses.
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != CHECKSUMS_FILE)
    _write(folder, {file.name: _digest(file) for file in files})


def write_calibration(folder: Path, content: str) -> None:
    """Add the calibration of a model that is saved; its checksum first, since without one it would not be checked.

    Raises:
        StorageError: The disk refuses.
        ConfigError: The checksums are damaged.
    """
    if (folder / CHECKSUMS_FILE).is_file():
        _write(folder, _read(folder) | {CALIBRATION_FILE: hashlib.sha256(content.encode()).hexdigest()})
    write_whole(folder / CALIBRATION_FILE, content)


def check_model(folder: Path) -> None:
    """Compare a model folder with its checksums; one without any is taken as it is.

    Raises:
        ConfigError: A file is missing, or is not what was saved.
    """
    for name, digest in _read(folder).items() if (folder / CHECKSUMS_FILE).is_file() else ():
        file = folder / name
        if not file.is_file():
            if name == CALIBRATION_FILE:  # which comes after its checksum
                continue
            raise ConfigError(f"{folder} is damaged: {name} is missing; get the whole folder anew")
        if _digest(file) != digest:
            raise ConfigError(
                f"{file} is damaged: it is not what was saved. Get the whole folder anew, or train the model again; "
                f"where you changed the file yourself, remove {CHECKSUMS_FILE}"
            )


def _read(folder: Path) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in json.loads((folder / CHECKSUMS_FILE).read_bytes()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder / CHECKSUMS_FILE} is damaged ({error}); get the whole folder anew") from error


def _write(folder: Path, digests: dict[str, str]) -> None:
    write_whole(folder / CHECKSUMS_FILE, json.dumps(digests, indent=1, ensure_ascii=False) + "\n")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
