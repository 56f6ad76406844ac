"""Files of a run with a bit turned or an end cut off: whoever reads them says so, or it makes no difference."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.torture import writes
from tests.torture.faults import LOST, NAMED, REFUSED, WHOLE, Torture, Trial
from tests.torture.jobs import differences, left_in, paid_twice
from tests.torture.processes import run

HALF = 0.7
"""Of its writes, after which the run that goes on was killed."""
CALLS = "calls.txt"
FILES = {
    "settings and records": ("run/config.yaml", "run/meta.json", "run/steps.jsonl"),
    "rows": ("run/history.jsonl", "run/validation.jsonl", "run/test.jsonl", "run/rejected.jsonl", "run/evidence.jsonl"),
    "calls": ("run/calls.sqlite",),
    "weights and tokenizer": (
        "run/models/best/model.safetensors",
        "run/models/best/config.json",
        "run/models/best/tokenizer.json",
        "run/models/best/calibration.json",
    ),
}
READERS = {
    "settings and records": ("resume", "export", "report"),
    "rows": ("resume", "export", "annotate"),
    "calls": ("resume",),
    "weights and tokenizer": ("classify",),
}
"""Of each group, what is done with it."""


def damaged(torture: Torture, group: str, places: int) -> Iterator[tuple[str, Trial]]:
    """Bytes at random in a finished run, and in one that was killed before its last step."""
    chosen = random.Random(torture.seed)
    inputs = torture.inputs
    commands = {
        "resume": ("distill", "--resume", "run"),
        "export": ("samples", "export", "run", "--out", "out/samples.csv"),
        "report": ("report", "run"),
        "classify": ("classify", "run", str(inputs / "texts.txt"), "--out", "out/table.jsonl"),
        "annotate": ("annotate", "run", str(inputs / "texts.txt"), "--teacher", "torture:m", "--labels", "4",
                     "--out", "out/labels.csv", "--config", str(inputs / "settings.yaml")),
    }  # fmt: skip
    half, distill = torture.work / "half", torture.jobs["distill"]
    if not half.exists():
        torture.fresh()
        torture.disturb(distill.command, writes.kill, round(HALF * len(torture.undisturbed(distill).writes)))
        shutil.copytree(torture.folder, half)
        shutil.copy(torture.calls, half / CALLS)
    expected = {reader: _outcome(torture, commands[reader]) for reader in READERS[group]}
    for _ in range(places):
        reader = chosen.choice(READERS[group])
        is_half = reader == "resume" and chosen.random() < 0.5
        _begin(torture, half if is_half else torture.inputs)
        sizes = {file: (torture.folder / file) for file in FILES[group]}
        file = chosen.choice([file for file, path in sizes.items() if path.is_file() and path.stat().st_size])
        where = f"{_damage(torture.folder / file, chosen)} of {file}, then {reader}"
        ended = run(commands[reader], torture.folder, torture.output)
        if ended.code in REFUSED:
            yield where, Trial(NAMED, ended.last_line)
        elif ended.code:
            yield where, Trial(LOST, f"exit code {ended.code}: {ended.last_line}")
        else:
            left = torture.undisturbed(distill).left if is_half else expected[reader]
            wrong = differences(left, _made(torture))
            wrong += paid_twice(torture.calls, torture.folder, 0) if is_half else []
            yield where, Trial(LOST, "; ".join(wrong)) if wrong else Trial(WHOLE)


def _begin(torture: Torture, whence: Path) -> None:
    torture.fresh()
    shutil.copytree(whence / "run", torture.folder / "run")
    if (whence / CALLS).exists():
        shutil.copy(whence / CALLS, torture.calls)


def _outcome(torture: Torture, command: tuple[str, ...]) -> dict[str, object]:
    _begin(torture, torture.inputs)
    ended = run(command, torture.folder, torture.output)
    if ended.code:
        raise SystemExit(f"{' '.join(command)} fails by itself:\n{ended.said}")
    return _made(torture)


def _made(torture: Torture) -> dict[str, object]:
    """Of a resume all that is there; of others what they wrote."""
    out = torture.folder / "out"
    return left_in(torture.folder if not out.exists() else out)


def _damage(file: Path, chosen: random.Random) -> str:
    content = bytearray(file.read_bytes())
    place = chosen.randrange(len(content))
    if chosen.random() < 0.3:
        file.write_bytes(content[:place])
        return f"cut at byte {place}"
    content[place] ^= 1 << chosen.randrange(8)
    file.write_bytes(content)
    return f"a bit of byte {place}"
