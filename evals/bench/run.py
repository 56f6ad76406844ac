"""Run contenders against each other and write a table.

    python -m evals.bench.run --data DIR [--parts train,infer] [--rounds 3] ...

DIR holds a folder per dataset (banking77, ag_news, huffpost, amzn_reviews; imdb and inshorts for the part `student`)
with train.jsonl, test.jsonl, labels.json; a dataset that is missing is left out, and that is said. Every contender is a
process of its own, never two at once, and contenders take turns over the rounds. Writes results.json and results.md
into --out, anew after every race. Splits, and students and exports for the comparison of inference, are kept in --work.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from evals.bench import contenders
from evals.bench.common import read_rows
from evals.bench.contenders import PARTS, Contender, Race
from evals.bench.machine import commit, describe_machine, versions_of
from evals.bench.report import add_ratios, over_seeds, summarize, to_markdown
from pgkd_agent import embedded
from pgkd_agent.files import write_whole

ROOT = Path(__file__).resolve().parents[2]

VALIDATION_SHARE = 0.2
"""Of the rows that the package splits."""

BUSY = 0.5
"""Load of a machine with other work on it."""

SETFIT_ROWS, SETFIT_STEPS = 200, 5
"""Of the model that SetFit's predict is timed with: its speed does not depend on how well it was trained."""


def words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of datasets")
    add("--out", type=Path, default=Path("runs/bench"))
    add("--work", type=Path, help="folder for models that are made; default: OUT/work")
    add("--rival-python", type=Path, default=Path(".bench-venv/bin/python"))
    usual = [part for part in PARTS if part != "student"]
    add("--parts", type=words, default=usual, help=f"some of {','.join(PARTS)}; default: all but student (a day)")
    add("--datasets", type=words, default=[], help="only these")
    add("--contenders", type=words, default=[], help="only names that contain one of these, e.g. ours,Trainer")
    add("--rounds", type=int, default=3, help="of races without a seed")
    add("--seeds", type=words, default=["1", "2", "3"], help="a round of training and restart for each")
    add("--student", default="minilm", help="minilm, or a folder")
    add("--threads", type=int, help="OMP_NUM_THREADS of all; default: as it is")
    add("--timeout", type=int, default=7200, help="seconds for one contender")
    add("--rows", type=int, default=800, help="to train on")
    add("--test-rows", type=int, help="default: 1000 at most, in the part student all")
    add("--epochs", type=int, default=12)
    add("--learning-rate", type=float, default=1.5e-4, help="of ours and of Trainer")
    add("--body-learning-rate", type=float, default=2e-5, help="of the contrastive methods")
    add("--setfit-epochs", type=int, help="passes, each four texts a row; default: --epochs, student: 20; 0: all pairs")
    add("--fastfit-epochs", type=int, default=40)
    add("--fastfit-repeats", type=int, default=1, help="of each batch; its README: 4")
    add("--all-rows", action="store_true", help="of student: all are trained on the validation rows too")
    add("--before", action="append", default=[], metavar="KEY=VALUE", help="a setting of `ours before`, else left out")
    add("--bert-rows", type=int, default=128)
    add("--texts", type=int, default=2000, help="to classify, at most")
    add("--calls", type=int, default=200, help="single texts")
    add("--student-rows", type=int, default=1000, help="of the students that classify")
    add("--student-epochs", type=int, default=3)
    add("--llm", type=Path, help="a GGUF file that classifies zero-shot, too")
    add("--llm-texts", type=int, default=10)
    add("--llm-threads", type=int, default=2)
    add("--restart-rows", type=int, default=500)
    add("--restart-steps", type=int, default=4)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if not options.data.is_dir():
        parser.error(f"--data {options.data}: no such folder")
    if options.llm and not options.llm.is_file():
        parser.error(f"--llm {options.llm}: no such file")
    for name in ("data", "out", "llm"):
        setattr(options, name, getattr(options, name) and getattr(options, name).resolve())
    options.rival_python = options.rival_python.absolute()  # a link of a virtual environment is not followed
    options.work = (options.work or options.out / "work").resolve()
    return options


class Bench:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._log = options.out / "log.txt"
        options.out.mkdir(parents=True, exist_ok=True)
        self._log.write_text("", encoding="utf-8")
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            **({"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}),
        }
        self.failures = 0
        if os.getloadavg()[0] > BUSY:
            self._say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): timings will say little")
        self.results: dict[str, Any] = {
            "date": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
            "commit": commit(),
            "command": shlex.join(["python", "-m", "evals.bench.run", *sys.argv[1:]]),
            "threads": self._environment.get("OMP_NUM_THREADS", ""),
            "machine": describe_machine(),
            "versions": {"ours": versions_of(sys.executable), "rivals": versions_of(str(options.rival_python))},
            "options": {key: str(value) for key, value in vars(options).items()},
            "races": [],
        }

    def run(self, races: Iterable[Race]) -> None:
        for race in races:
            known = self._options.contenders
            chosen = [one for one in race.contenders if not known or any(part in one.name for part in known)]
            if not chosen:
                continue
            try:
                race.prepare()
            except RuntimeError as error:
                self._say(f"{race.part} {race.dataset}: not run: {error}")
                self.failures += 1
                continue
            self.results["races"].append(self._race(race, chosen))
            self._write()

    def _race(self, race: Race, chosen: Sequence[Contender]) -> dict[str, Any]:
        entries: list[dict[str, Any]] = [
            {"name": one.name, "is_ours": one.is_ours, "runs": [], "failure": ""} for one in chosen
        ]
        options = self._options
        rounds = [("--seed", seed) for seed in options.seeds] if race.seeded else [()] * options.rounds
        for number, seed in enumerate(rounds):
            for one, entry in zip(chosen, entries, strict=True):
                if entry["failure"] or (one.once and number):
                    continue
                started = time.perf_counter()
                figures, entry["failure"] = self._start(one, seed)
                took = time.perf_counter() - started
                where = f"{race.part} {race.dataset}, round {number + 1} of {len(rounds)}: {one.name}"
                self._say(f"{where}: {entry['failure'] or 'done'} ({took:.0f} s)")
                if entry["failure"]:
                    self.failures += 1
                else:
                    entry["runs"].append({"round": number, "seed": seed[1] if seed else None, "figures": figures})
        _add_agreement(chosen, entries)
        for entry in entries:
            entry["summary"] = summarize(entry["runs"])
            if race.seeded:
                entry["over_seeds"] = over_seeds(entry["runs"])
        raced = {"part": race.part, "dataset": race.dataset, "contenders": entries}
        add_ratios(raced)
        return raced

    def _start(self, one: Contender, seed: Sequence[str]) -> tuple[dict[str, float | None], str]:
        """Its figures, or why there are none."""
        python = str(self._options.rival_python) if one.is_rival else sys.executable
        try:
            output = self.call([python, "-m", f"evals.bench.{one.module}", *one.arguments, *seed])
            figures: dict[str, float | None] = json.loads(output.strip().splitlines()[-1])
        except (RuntimeError, ValueError, IndexError) as error:
            return {}, str(error).replace("|", "/") or type(error).__name__
        return figures, ""

    def call(self, command: Sequence[str]) -> str:
        """Its output; what it says beside that goes into the log.

        Raises:
            RuntimeError: It failed; the last line of what it said.
        """
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {shlex.join(command)}\n")
            log.flush()
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=self._options.timeout,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RuntimeError(f"{type(error).__name__}: {Path(command[0]).name} {command[2]}") from error
            log.write(done.stderr + done.stdout)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise RuntimeError(f"exit code {done.returncode}: {lines[-1][:160] if lines else 'nothing said'}")
        return done.stdout

    def make(self, made: Path, command: Sequence[str]) -> None:
        """Run a command unless what it makes is there."""
        if not made.exists():
            self._say(f"making {made}")
            self.call(command)

    def _write(self) -> None:
        out = self._options.out
        write_whole(out / "results.json", json.dumps(self.results, indent=1) + "\n")
        write_whole(out / "results.md", to_markdown(self.results))

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{datetime.now():%H:%M:%S} {line}\n")
        sys.stderr.flush()


def _add_agreement(chosen: Sequence[Contender], entries: Sequence[dict[str, Any]]) -> None:
    """The share of labels that are as those of `FULL_PRECISION`."""
    written = {
        one.name: json.loads(one.labels.read_text(encoding="utf-8"))
        for one, entry in zip(chosen, entries, strict=True)
        if one.labels and entry["runs"]
    }
    expected = written.get(contenders.FULL_PRECISION)
    if expected is None:
        return
    for entry in entries:
        if labels := written.get(entry["name"]):
            same = sum(map(str.__eq__, labels, expected)) / len(expected)
            for run in entry["runs"]:
                run["figures"]["agreement"] = same


def prepare_splits(bench: Bench, options: argparse.Namespace) -> Callable[[str, Path], None]:
    rows = str(round(options.rows / (1 - VALIDATION_SHARE)))

    def prepare(dataset: str, splits: Path) -> None:
        command = [sys.executable, "-m", "evals.bench.splits", "--data", str(options.data / dataset)]
        bench.call([*command, "--out", str(splits), "--rows", rows, "--seeds", *options.seeds])

    return prepare


def prepare_bert_base(bench: Bench, folder: Path, model: Path) -> Callable[[], None]:
    command = [sys.executable, "-m", "evals.bench.make_bert_base", "--tokenizer", str(model), "--out", str(folder)]
    return lambda: bench.make(folder, command)


def prepare_inference(bench: Bench, options: argparse.Namespace, model: Path) -> Callable[[str, Path, Path], None]:
    """A student trained once, its exports, a SetFit model, and the texts."""

    def prepare(dataset: str, folder: Path, student: Path) -> None:
        data, best, pgkd = options.data / dataset, student / "models" / "best", [sys.executable, "-m", "pgkd_agent"]
        folder.mkdir(parents=True, exist_ok=True)
        texts = [text for text, _label in read_rows(data / "test.jsonl")][: options.texts]
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        source = ["--train", str(data / "train.jsonl"), "--labels", str(data / "labels.json")]
        size = ["--rows", str(options.student_rows), "--set", f"student.max_epochs={options.student_epochs}"]
        fixed = ["--seed", "1", "--set", "student.device=cpu", "--student", str(model), "--out", str(student)]
        bench.make(student / "result.json", [*pgkd, "train", *source, *size, *fixed])
        for form in ("onnx", "onnx-int8"):  # agreement is a figure of the table here, and no bound
            export = [*pgkd, "export", str(best), "--format", form, "--min-agreement", "0"]
            bench.make(best.with_name(f"best-{form}"), export)
        setfit = options.work / "setfit" / f"{model.name}-{dataset}"
        command = [str(options.rival_python), "-m", "evals.bench.train_setfit", "--data", str(data)]
        command += ["--model", str(model), "--rows", str(SETFIT_ROWS), "--test-rows", "10", "--epochs", "1"]
        if options.rival_python.exists():
            bench.make(setfit, [*command, "--max-steps", str(SETFIT_STEPS), "--save", str(setfit)])

    return prepare


def main() -> None:
    options = parse()
    bench = Bench(options)
    model = embedded.require(options.student) if options.student in embedded.MODELS else Path(options.student).resolve()
    bert = options.work / "bert-base"
    races: dict[str, Callable[[], Iterable[Race]]] = {
        "train": lambda: contenders.training(options, model),
        "student": lambda: contenders.student(options, options.work, model, prepare_splits(bench, options)),
        "bert-base": lambda: contenders.bert_base(options, bert, prepare_bert_base(bench, bert, model)),
        "infer": lambda: contenders.inference(options, options.work, model, prepare_inference(bench, options, model)),
        "guardrails": lambda: contenders.guardrails(options),
        "restart": lambda: contenders.restart(options, model),
    }
    for part in options.parts:
        bench.run(races[part]())
    sys.stderr.write(f"{options.out / 'results.md'} and results.json; {bench.failures} failures\n")
    sys.exit(1 if bench.failures else 0)


if __name__ == "__main__":
    main()
