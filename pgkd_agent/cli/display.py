"""A run's progress: a bar and a line a step on a terminal, lines with the time where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pgkd_agent.cli.terminal import Log, details, say
from pgkd_agent.loop.trust import GoldCheck
from pgkd_agent.runs.observer import Observer
from pgkd_agent.teacher.calls.estimates import Estimate
from pgkd_agent.text import counted, shorten
from pgkd_agent.types import StepRecord

SUSPECTS_SHOWN = 5


def say_gold(console: Console, check: GoldCheck) -> None:
    """Say how the teacher labelled rows with known labels, and whose label looks wrong."""
    say(console, str(check))
    if suspects := check.suspects:
        labels = counted(len(suspects), "label")
        say(console, f"{labels} may be wrong, as teacher and other rows say the same other one; nothing is changed:")
    for row in suspects[:SUSPECTS_SHOWN]:
        say(console, f"  {row.label}, or {row.teacher}? {shorten(row.text, 80)}")
    if (more := len(suspects) - SUSPECTS_SHOWN) > 0:
        say(console, f"  and {more} more")


class Display(Observer):
    """One bar for the fit or the teacher, with the time that it has left, and a line a step above it."""

    def __init__(self, console: Console, num_kd_steps: int) -> None:
        self._console = console
        self._log = Log(console)
        self._steps = num_kd_steps
        self._kd_step = 0
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: TaskID = self.progress.add_task("", total=1)
        self._done = 0
        self._begin("loading the student")

    def on_phase(self, kd_step: int, what: str) -> None:
        self._kd_step = kd_step
        self._begin(self._in_step(what))

    def on_epoch(self, epoch: int, max_epochs: int, validation_loss: float) -> None:
        what = self._in_step("student, epoch")
        self._show(f"{what} (loss {validation_loss:.3f})", epoch, max_epochs)
        self._log.goes_on(f"{what} {epoch} of at most {max_epochs}, validation loss {validation_loss:.3f}")

    def on_request(self, kd_step: int, answered: int, planned: int) -> None:
        what = self._in_step("teacher, request")
        self._show(what, answered, planned)
        self._log.goes_on(f"{what} {answered} of {planned}")

    def on_wait(self, what: str) -> None:
        self.progress.update(self._bar, description=self._in_step(what))
        self._log.goes_on(self._in_step(what))

    def _in_step(self, what: str) -> str:
        return f"step {self._kd_step}/{self._steps}: {what}" if self._steps else what

    def _begin(self, what: str) -> None:
        self._log.begins(what)
        self._show(what, 0, 1)

    def _show(self, what: str, done: int, of: int) -> None:
        """What begins anew has a time of its own."""
        if done <= self._done:
            self.progress.reset(self._bar)
        self._done = done
        self.progress.update(self._bar, description=what, completed=done, total=of)

    def on_estimate(self, estimate: Estimate) -> None:
        is_sharp = estimate.input_tokens[0] == estimate.input_tokens[1]
        what = "estimate with the first prompts" if is_sharp else "estimate"
        say(self._console, f"{what}: {estimate}")

    def on_gold(self, check: GoldCheck) -> None:
        say_gold(self._console, check)

    def on_test(self, n_rows: int) -> None:
        self._begin(f"predicting {counted(n_rows, 'test row')}")

    def on_step(self, record: StepRecord) -> None:
        report = record.validation.report
        best = "*" if record.is_best else " "
        samples = f"   samples {record.accepted}/{record.asked} accepted" if record.asked else ""
        if record.refused:
            samples += f", {counted(record.refused, 'reply', 'replies')} refused"
        if record.rejected:
            samples += f" (rejected: {by_rule(record.rejected)})"
        teacher = f"teacher {record.teacher_seconds:.0f} s, " if record.asked else ""
        say(
            self._console,
            f"step {record.kd_step:>2}   loss {record.validation.loss:.4f}{best}  "
            f"acc {report.accuracy:.3f}  macro F1 {report.macro_f1:.3f}   rows {record.history_rows}   "
            f"{teacher}student {record.student_seconds:.0f} s{samples}",
        )
        say(details(), f"step {record.kd_step}: {counted(record.epochs, 'epoch')}, rate {record.learning_rate:g}")


def by_rule(rejected: dict[str, int]) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in sorted(rejected.items()))
