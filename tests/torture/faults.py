"""The faults: each is tried on a command, which is then gone on with; what is there in the end is compared."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture import writes
from tests.torture.disk import Disk
from tests.torture.jobs import COUNT, Job, differences, jobs, left_in, paid_twice, prepare, sent_again
from tests.torture.processes import CRASHED, Ended, run, start, wait

WHOLE, NAMED, LOST = "whole", "named", "lost"
LONGEST_WHY = 300
"""Characters."""
REFUSED = (2, 3, 4, 5)
"""Exit codes of errors that say what to do."""


@dataclass(frozen=True)
class Trial:
    """How it ended: as if nothing had been, refused with a reason, or neither; `why` is what a person saw, or lost."""

    outcome: str
    why: str = ""


@dataclass
class Line:
    """Of the table."""

    fault: str
    job: str
    trials: list[Trial] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, outcome: str) -> int:
        return sum(trial.outcome == outcome for trial in self.trials)

    @property
    def seen(self) -> str:
        """What was seen most often, the lost first."""
        said = Counter(trial.why for trial in self.trials if trial.outcome == (LOST if self.count(LOST) else NAMED))
        said = said or Counter(trial.why for trial in self.trials if trial.why)
        return said.most_common(1)[0][0] if said else ""


@dataclass(frozen=True)
class Undisturbed:
    """Of a command by itself: what it leaves, its writes in their order, its seconds, and what it asks twice."""

    left: dict[str, object]
    writes: list[str]
    seconds: float
    sent_again: int


class Torture:
    """
    Args:
        work: A new folder for everything.
        say: Told of each trial that lost something.
    """

    def __init__(self, work: Path, seed: int, every: int = 1, say: Callable[[str], None] = print) -> None:
        self.work, self.seed, self.every, self.say = work, seed, every, say
        self.inputs, self.folder, self.output = work / "inputs", work / "try", work / "output.txt"
        self.calls = work / "calls.txt"
        os.environ[COUNT] = str(self.calls)
        self.inputs.mkdir(parents=True)
        prepare(self.inputs)
        self.jobs = jobs(self.inputs)
        self._undisturbed: dict[str, Undisturbed] = {}
        self._commands(
            ("distill", *self.jobs["distill"].command[1:]), ("samples", "export", "run", "--out", "samples.csv")
        )

    def _commands(self, *commands: tuple[str, ...]) -> None:
        for command in commands:
            ended = run(command, self.inputs, self.output)
            if ended.code:
                raise SystemExit(f"{' '.join(command)} fails by itself:\n{ended.said}")

    def fresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.calls.unlink(missing_ok=True)

    def undisturbed(self, job: Job) -> Undisturbed:
        if job.name not in self._undisturbed:
            self.fresh()
            seen = self.work / "writes.txt"

            def note(what: str, path: Path) -> None:
                with seen.open("a") as file:
                    file.write(f"{what} {path.name}\n")

            seen.unlink(missing_ok=True)
            started = time.monotonic()
            ended = run(job.command, self.folder, self.output, lambda: writes.watch(self.folder, note))
            if ended.code:
                raise SystemExit(f"{job.name} fails by itself:\n{ended.said}")
            taken = time.monotonic() - started
            self._undisturbed[job.name] = Undisturbed(
                left_in(self.folder), seen.read_text().splitlines(), taken, sent_again(self.calls)
            )
        return self._undisturbed[job.name]

    def tried(self, line: Line, trials: Iterator[tuple[str, Trial]]) -> None:
        started = time.monotonic()
        for where, trial in trials:
            line.trials.append(trial)
            line.seconds = time.monotonic() - started
            if trial.outcome == LOST:
                self.say(f"LOST: {line.fault}, {line.job}, {where}: {trial.why}")

    def places(self, job: Job) -> Iterator[tuple[int, str]]:
        found = self.undisturbed(job).writes
        first = random.Random(f"{self.seed} {job.name}").randrange(self.every)
        return ((number, f"write {number} ({found[number]})") for number in range(first, len(found), self.every))

    def disturb(self, command: tuple[str, ...], act: writes.Told, at: int, goes_on: bool = False) -> Ended:
        return run(
            command, self.folder, self.output, lambda: writes.watch(self.folder, writes.Counter(at, act, goes_on))
        )

    def finish(self, job: Job, said: str = "") -> Trial:
        """Go on as a person would, and compare with what an undisturbed command leaves."""
        ended = run(job.resuming(self.folder), self.folder, self.output)
        if ended.code in REFUSED and "exists already" in ended.said and not job.goes_on:
            shutil.rmtree(self.folder / job.out)
            ended = run(job.command, self.folder, self.output)
        if ended.code in REFUSED and "exists already" in ended.said:
            said = ended.last_line  # it was all done
        elif ended.code in REFUSED:
            return Trial(NAMED, ended.last_line)
        elif ended.code:
            return Trial(LOST, f"exit code {ended.code}: {ended.last_line}")
        return self.compared(job, said)

    def compared(self, job: Job, said: str) -> Trial:
        expected = self.undisturbed(job)
        wrong = differences(expected.left, left_in(self.folder))
        wrong += paid_twice(self.calls, self.folder, expected.sent_again)
        return Trial(LOST, "; ".join(wrong)[:LONGEST_WHY]) if wrong else Trial(WHOLE, said)

    def write_boundaries(self, job: Job, twice: bool) -> Iterator[tuple[str, Trial]]:
        """Killed at each write; with `twice` the resume is killed at a write too."""
        chosen = random.Random(self.seed)
        for number, where in self.places(job):
            self.fresh()
            killed = self.disturb(job.command, writes.kill, number)
            if twice and killed.code == -signal.SIGKILL:
                again = chosen.randrange(1, max(2, len(self.undisturbed(job).writes) - number))
                where += f", then {again}"
                self.disturb(job.resuming(self.folder), writes.kill, again)
            if killed.code != -signal.SIGKILL:
                yield where, Trial(LOST, f"was not killed: {killed.last_line}")
            else:
                yield where, self.finish(job)

    def random_signals(self, job: Job, kills: int) -> Iterator[tuple[str, Trial]]:
        """SIGKILL, SIGTERM and SIGINT at any moment, half of them during the resume too."""
        chosen = random.Random(self.seed)
        seconds = self.undisturbed(job).seconds
        for _ in range(kills):
            self.fresh()
            where, trial = "", Trial(WHOLE)
            for command in (job.command, *(["again"] * chosen.randrange(2))):
                number, delay = (
                    chosen.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)),
                    chosen.uniform(0, seconds),
                )
                where += f"{number.name} after {delay:.2f} s "
                what = job.resuming(self.folder) if command == "again" else job.command
                process = start(what, self.folder, self.output)
                time.sleep(delay)
                os.kill(process, number)
                ended = wait(process, self.output)
                if ended.code not in (0, -number, 128 + number, *REFUSED):
                    trial = Trial(LOST, f"exit code {ended.code}: {ended.last_line}")
            yield where, self.finish(job, ended.last_line) if trial.outcome == WHOLE else trial

    def power_loss(self, job: Job, keeps_names: bool) -> Iterator[tuple[str, Trial]]:
        """At each write all that is not synced is lost."""
        for number, where in self.places(job):
            self.fresh()
            rest = self.work / "rest"
            shutil.rmtree(rest, ignore_errors=True)

            def die(disk: Disk, rest: Path = rest) -> writes.Told:
                def act(what: str, path: Path) -> None:
                    rest.mkdir()
                    (disk.without_contents if keeps_names else disk.without_names)(rest)
                    writes.kill("power", path)

                return act

            def prepare(number: int = number, die: Callable[[Disk], writes.Told] = die) -> None:
                disk = Disk(self.folder)
                counter = writes.Counter(number, die(disk))

                def tell(what: str, path: Path) -> None:
                    disk(what, path)
                    counter(what, path)

                writes.watch(self.folder, tell)

            where += f", {run(job.command, self.folder, self.output, prepare).last_line}"
            shutil.rmtree(self.folder)
            rest.rename(self.folder)
            yield where, self.finish(job)

    def refusing_disk(self, job: Job, act: writes.Told) -> Iterator[tuple[str, Trial]]:
        """From each write on the disk refuses; then there is room again."""
        for number, where in self.places(job):
            self.fresh()
            ended = self.disturb(job.command, act, number, goes_on=True)
            if ended.code not in (0, 1, *REFUSED):
                yield where, Trial(LOST, f"exit code {ended.code}: {ended.last_line}")
            else:
                yield where, self.finish(job, ended.last_line)

    def vanishing_folder(self, job: Job) -> Iterator[tuple[str, Trial]]:
        """What is made is removed under it, once; the command may begin anew, or say what is wrong."""
        for number, where in self.places(job):
            self.fresh()

            def act(what: str, path: Path) -> None:
                for each in self.folder.iterdir():
                    shutil.rmtree(each) if each.is_dir() else each.unlink()

            ended = self.disturb(job.command, act, number)
            if ended.code == CRASHED or ended.code < 0:
                yield where, Trial(LOST, f"exit code {ended.code}: {ended.last_line}")
            else:
                yield where, Trial(NAMED if ended.code else WHOLE, ended.last_line if ended.code else "")

    def jumping_clock(self, job: Job) -> Iterator[tuple[str, Trial]]:
        """Killed, with files and clock days before or after each other."""
        chosen = random.Random(self.seed)
        for number, where in self.places(job):
            self.fresh()
            self.disturb(job.command, writes.kill, number)
            for path in self.folder.rglob("*"):
                day = time.time() + chosen.choice((-1, 1)) * 86400 * chosen.randrange(1, 400)
                os.utime(path, (day, day))
            yield where, self.finish(job)

    def two_at_once(self, job: Job, times: int) -> Iterator[tuple[str, Trial]]:
        """The same command twice: one does it, the other one says so."""
        for number in range(times):
            self.fresh()
            other = self.work / "other.txt"
            processes = [start(job.command, self.folder, output) for output in (self.output, other)]
            ended = [wait(process, output) for process, output in zip(processes, (self.output, other), strict=True)]
            codes = sorted(each.code for each in ended)
            said = next((each.last_line for each in ended if each.code), "")
            if codes[0] or codes[1] not in (0, *REFUSED):
                yield f"time {number}", Trial(LOST, f"exit codes {codes}: {said}")
            else:
                yield f"time {number}", self.compared(job, said)
