"""The run directory: all that a run decided, saw and made, readable while it goes and after a crash.

config.yaml   resolved settings        history.jsonl                 training rows with provenance
meta.json     versions, ids, hashes    validation.jsonl, test.jsonl  the held-out rows
steps.jsonl   a line a step            rejected.jsonl                rejected samples with rule and reason
result.json   the outcome              calls.sqlite                  prompts and raw replies
evidence.jsonl     rows in the prompts models/                       best/ and last/, Hugging Face layout
report.html   all of it as a page      transcripts.jsonl             talks of an agent
gold.json     labels by the teacher    review.jsonl                  a person's word on the samples (`pgkd ui`)
predictions.jsonl  of the test rows    checksums.jsonl               what each file is, so that a damaged one is named
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from pgkd_agent.config import PGKDConfig, to_yaml
from pgkd_agent.data import Task
from pgkd_agent.errors import PGKDError, StorageError
from pgkd_agent.files import (
    append_lines,
    as_line,
    encoded,
    lock,
    make_folder,
    not_written,
    read_lines,
    remove_leftovers,
    settle_folder,
    storing,
    write_whole,
)
from pgkd_agent.loop.history import History
from pgkd_agent.loop.protocols import Asked
from pgkd_agent.metrics.calibration import CALIBRATION_FILE
from pgkd_agent.runs.checksums import CHECKSUMS_FILE, note
from pgkd_agent.runs.stored import (
    FORMAT,
    LOCK_FILE,
    POOL_FILE,
    PREDICTIONS_FILE,
    START_FILES,
    STEP_FILES,
    check_files,
    require_new,
)
from pgkd_agent.student.checksums import write_calibration
from pgkd_agent.teacher.calls.call_log import ANSWERED, CallLog
from pgkd_agent.types import StepRecord

SAME_LOSS = 1e-6
"""Most that the validation loss of a replayed step may differ, in nats: the same machine repeats it exactly."""


class Savable(Protocol):
    def save(self, folder: Path) -> None: ...
    def snapshot(self) -> Any: ...
    def restore(self, snapshot: Any) -> None: ...


class RunDirectory:
    """Writes whole files atomically, and appends whole lines.

    Attributes:
        has_new_steps: Whether a step was stored since the directory was made or opened.
    Raises:
        StorageError: The disk is full or refuses.
    """

    def __init__(self, path: Path, made: Sequence[Path] = (), is_resumed: bool = False) -> None:
        """Use `create` or `reopen`."""
        self.path = path
        self.calls = path / "calls.sqlite"
        self.best_model = path / "models" / "best"
        self.has_new_steps = False
        self._made = made
        self._lock = lock(path / LOCK_FILE, f"run directory {path}")
        self._is_resumed = is_resumed
        self._may_be_discarded = not is_resumed
        self._with_rows_to_drop = {*STEP_FILES} if is_resumed else set()
        self._losses: list[float] = []
        self._best: Any = None

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Make a new run directory.

        Raises:
            ConfigError: It exists and is not empty; nothing in it is touched.
            StorageError: It cannot be made, or another process is about to use it.
        """
        require_new(path)
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            make_folder(path)
        except OSError as error:
            _remove_folders(made)
            raise not_written(path, error) from error
        directory = cls(path, made)
        try:
            require_new(path)  # another process may have had it until now
            with storing(path):
                for name in (file.name for file in path.iterdir()):
                    if name != LOCK_FILE:  # of one that was stopped before it began
                        (path / name).unlink()
        except PGKDError:
            directory._lock.release()
            raise
        return directory

    @classmethod
    def reopen(cls, path: Path) -> RunDirectory:
        """Open a run that was stopped; nothing of it changes before its first new step.

        A step that a cap cut short does not count as stored: with what a higher cap allows it comes out differently.

        Raises:
            StorageError: A file is damaged, or another process works on the run.
        """
        directory = cls(path, is_resumed=True)
        try:
            check_files(path, settle=True)
            stored = {name: read_lines(path / name) for name in STEP_FILES}
            directory._losses = [step["validation"]["loss"] for step in stored["steps.jsonl"] if not step["stopped_by"]]
            with storing(path):
                for model in ("best", "last"):
                    settle_folder(path / "models" / model)
                for folder in (path, directory.best_model):
                    remove_leftovers(folder)
        except BaseException:
            directory.close()
            raise
        return directory

    @property
    def num_stored_steps(self) -> int:
        """KD steps that are stored whole, the plain student (step 0) among them."""
        return len(self._losses)

    def keep(self) -> None:
        """From now on the run has begun, and is there to be resumed."""
        self._may_be_discarded = False

    def close(self) -> None:
        """Leave it to others; a run that failed before it began, and before its teacher answered, leaves nothing."""
        if self._may_be_discarded and not self._has_answers():
            with contextlib.suppress(OSError):
                for name in (*START_FILES, POOL_FILE, CHECKSUMS_FILE, LOCK_FILE):
                    (self.path / name).unlink(missing_ok=True)
            _remove_folders(self._made)
        self._lock.release()

    def _has_answers(self) -> bool:
        """Stopped right after its teacher was found to answer: that was paid for, and is not sent again."""
        if not self.calls.exists():
            return False
        with contextlib.suppress(StorageError), contextlib.closing(CallLog(self.calls)) as log:
            return any(call["outcome"] == ANSWERED for call in log)
        return False

    def require_space(self, model_bytes: int) -> None:
        """Fail before anything is trained where the models will not fit.

        Raises:
            StorageError: There is no room for best and last model, each with its successor for a moment.
        """
        needed, free = 4 * model_bytes, shutil.disk_usage(self.path).free
        if free < needed:
            raise StorageError(
                f"{self.path}: {free / 1e3:,.0f} kB free, the run's models need {needed / 1e3:,.0f} kB; make room, or "
                "name a run directory on another disk with `out`"
            )

    def write_start(self, config: PGKDConfig, meta: Mapping[str, Any], task: Task) -> None:
        """Store what the run starts from; `meta.json` comes last, so that a directory with one is whole."""
        self._write("config.yaml", to_yaml(config))
        rows_of = {"history": History.of(task.train).rows, "validation": task.validation, "test": task.test}
        lines_of: dict[str, Iterable[dict[str, Any]]]
        lines_of = {f"{name}.jsonl": map(asdict, rows) for name, rows in rows_of.items()}
        if task.unlabelled:
            lines_of[POOL_FILE] = ({"text": text} for text in task.unlabelled)
        for name, lines in lines_of.items():
            self._write(name, "".join(map(as_line, lines)))
        labels = [asdict(label) for label in task.taxonomy]
        meta = {"format": FORMAT, **meta, "task_description": task.description, "taxonomy": labels}
        self._write("meta.json", _as_json(meta))

    def add_step(self, record: StepRecord, asked: Asked | None, student: Savable) -> None:
        """Store a step; weights before the line that says they are there. A step that is stored is only compared.

        Raises:
            StorageError: The disk refuses; or a replayed step came out differently.
        """
        if record.kd_step < self.num_stored_steps:
            self._compare(record)
            if record.is_best and self._is_resumed:
                self._best = student.snapshot()
            return
        self.has_new_steps = True
        for outcome in (self.path / "result.json", self.path / PREDICTIONS_FILE):
            with storing(outcome):
                outcome.unlink(missing_ok=True)  # of the run as it ended before, with the model that is replaced now
        self._save_models(record, student)
        if asked is not None:
            self._append("history.jsonl", (asdict(row) for row in asked.screened.accepted))
            for name, items in (("rejected", asked.screened.rejected), ("evidence", asked.shown)):
                self._append(f"{name}.jsonl", ({"kd_step": record.kd_step, **asdict(item)} for item in items))
        self._append("steps.jsonl", [asdict(record)])

    def _save_models(self, record: StepRecord, student: Savable) -> None:
        """Also the best model before this step, since the stored one may be of a step that is made anew."""
        student.save(self.path / "models" / "last")
        if record.is_best:
            student.save(self.best_model)
        elif self._best is not None:
            now = student.snapshot()
            student.restore(self._best)
            student.save(self.best_model)
            student.restore(now)
        self._best = None

    def add_transcript(self, kd_step: int, messages: Sequence[Mapping[str, Any]]) -> None:
        """Store an agent's conversation; one that is stored is kept."""
        if kd_step >= self.num_stored_steps:
            self._append("transcripts.jsonl", [{"kd_step": kd_step, "messages": messages}])

    def write_gold(self, check: Mapping[str, Any]) -> None:
        """Store how the teacher labelled rows with known labels; what is stored stays."""
        if not (self.path / "gold.json").exists():
            self._write("gold.json", _as_json(check))

    def _compare(self, record: StepRecord) -> None:
        stored = self._losses[record.kd_step]
        if abs(record.validation.loss - stored) > SAME_LOSS:
            raise StorageError(
                f"{self.path}: step {record.kd_step} came out differently (validation loss "
                f"{record.validation.loss:.6f}, stored {stored:.6f}), so the run cannot be continued here; use the "
                "machine, the thread count and the versions in its meta.json. Nothing of it was changed"
            )

    def write_result(
        self, result: Mapping[str, Any], predictions: Iterable[dict[str, Any]] = (), returned: Savable | None = None
    ) -> None:
        """Store the outcome, and the model where it is none of the steps'; a replay changes nothing.

        Raises:
            StorageError: The disk refuses.
        """
        is_new = self.has_new_steps or not (self.path / "result.json").exists()
        has_model = self.best_model.is_dir()  # of a finished run it may have been removed
        if has_model and returned and is_new:
            returned.save(self.best_model)
        if is_new or not (self.path / PREDICTIONS_FILE).exists():
            self._write(PREDICTIONS_FILE, "".join(map(as_line, predictions)))
        if is_new:
            self._write("result.json", _as_json(result))
        if has_model and (is_new or not (self.best_model / CALIBRATION_FILE).exists()):
            write_calibration(self.best_model, _as_json(result["calibration"]))

    def _write(self, name: str, content: str) -> None:
        note(self.path, name, encoded(content))
        write_whole(self.path / name, content)

    def _append(self, name: str, rows: Iterable[dict[str, Any]]) -> None:
        """Append, after dropping the rows of a step that is made anew, and half a line of a stopped run."""
        if name in self._with_rows_to_drop:
            kept = [row for row in read_lines(self.path / name) if row["kd_step"] < max(self.num_stored_steps, 1)]
            self._write(name, "".join(map(as_line, kept)))
            self._with_rows_to_drop.remove(name)
        lines = [*rows]
        file = self.path / name
        before = file.read_bytes() if file.exists() else b""
        note(self.path, name, before + encoded("".join(map(as_line, lines))))
        append_lines(file, lines)


def _as_json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _remove_folders(folders: Iterable[Path]) -> None:
    """Those that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
