"""What a measurement was made on: CPU, cores, instruction sets, versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Instruction sets that decide what a product of matrices costs."""

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "openvino",
    "sentence-transformers",
    "setfit",
    "fast-fit",
    "scikit-learn",
    "accelerate",
)


def describe_machine() -> dict[str, object]:
    """Of Linux the CPU's name and flags; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _colon, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.platform(),
        "load_at_start": os.getloadavg()[0],
    }


def versions_of(python: str) -> dict[str, str]:
    """Of the packages that matter in another environment; empty where that Python is not there."""
    code = (
        "import json,platform;from importlib import metadata\n"
        f"found={{'python': platform.python_version()}}\nfor name in {PACKAGES!r}:\n"
        "    try: found[name]=metadata.version(name)\n    except metadata.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = json.loads(done.stdout)
    return found


def commit() -> str:
    """Of the checkout, with a mark where files differ from it; empty outside of one."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
