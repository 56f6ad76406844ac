"""A run on the terminal: progress while it goes, tables when it is done, and the dry run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgkd_agent.cli import terminal
from pgkd_agent.cli.display import Display, by_rule
from pgkd_agent.cli.groups import options_of
from pgkd_agent.cli.options import Caps, Outlets
from pgkd_agent.cli.stopping import going_on
from pgkd_agent.cli.terminal import details, money, say
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task
from pgkd_agent.errors import StorageError
from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.pipeline import DistillResult, resume, run
from pgkd_agent.runs.hub import check_hub, push
from pgkd_agent.runs.observer import Observer, Observers
from pgkd_agent.runs.stored import read_run
from pgkd_agent.runs.summary import NAMES, BeforeAfter, RunResult, class_changes
from pgkd_agent.runs.trackers import tracked
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.opening import members
from pgkd_agent.teacher.preview import Preview, estimate, preview, refusals
from pgkd_agent.text import counted, without_controls

WINNERS_AND_LOSERS = 5
"""Classes listed at each end of the before/after table."""


def run_with_display(
    task: Task, config: PGKDConfig, out: Path, teacher: Teacher | None = None, outlets: Outlets | None = None
) -> None:
    """
    Args:
        teacher: Instead of the one in the settings.
    """
    what = _what(task, config, out, "samples as given" if teacher else _teachers(config))
    how = partial(_how_to_go_on, out, teacher is None)
    with going_on(how):
        _show(what, config, out, lambda observer: run(task, config, teacher, out, observer), outlets or Outlets())


def resume_with_display(out: Path, caps: Mapping[str, Any], outlets: Outlets) -> None:
    """
    Args:
        caps: By dotted key, instead of the same ones that the run had.
    """
    stored = read_run(out)
    budget = stored.config.changed(caps).budget
    what = _what(stored.task, stored.config, out, _teachers(stored.config)) + "\nreplaying what is stored"
    with going_on(partial(_how_to_go_on, out), but_for=StorageError):
        _show(what, stored.config, out, lambda observer: resume(out, observer=observer, budget=budget), outlets)


def _how_to_go_on(out: Path, can_be_resumed: bool = True) -> str:
    if not (out / "meta.json").is_file():
        return "the run had not begun: nothing was kept"
    if not can_be_resumed:
        return f"{out} keeps what there is, and cannot be gone on with: start again with another --out"
    best = out / "models" / "best"
    so_far = f"the best model so far is {best}; " if best.is_dir() else ""
    return f"{so_far}to go on, without paying a call twice: {_resuming(out)}"


def _resuming(out: Path) -> str:
    return f"pgkd distill --resume {shlex.quote(str(out))}"


def _teachers(config: PGKDConfig) -> str:
    return f"teacher {', '.join(settings.spec for settings in members(config.teacher))}"


def _show(what: str, config: PGKDConfig, out: Path, job: Callable[[Observer], DistillResult], outlets: Outlets) -> None:
    notes, results = terminal.notes(), terminal.results()
    if outlets.push_to_hub is not None:
        check_hub(outlets.push_to_hub)
    with ExitStack() as stack:
        trackers = [stack.enter_context(tracked(spec, out.name, config)) for spec in outlets.track or ()]
        say(notes if outlets.as_json else results, what)
        display = Display(notes, config.pgkd.num_kd_steps)
        with display.progress:
            result = job(Observers([display, *trackers]))
    if outlets.as_json:
        found = {"run": str(result.run), "model": f"{result.run}/models/best", **asdict(result.summary)}
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _print_result(results, result)
    if outlets.push_to_hub is not None:
        say(notes, f"on the model hub: {push(out / 'models' / 'best', outlets.push_to_hub)}")


def _what(task: Task, config: PGKDConfig, out: Path, teacher: str) -> str:
    with_rows = len({row.label for row in task.train})
    return (
        f"{len(task.train)} training, {len(task.validation)} validation, {counted(len(task.test), 'test row')}; "
        f"{counted(len(task.taxonomy), 'class', 'classes')}, {with_rows} of them with training rows\n"
        f"student {config.student.name}"
        + (f", {teacher}" if config.pgkd.num_kd_steps else ", no teacher")
        + f", run directory {out}"
    )


def _print_result(console: Console, result: DistillResult) -> None:
    summary = result.summary
    if summary.stopped_by:
        say(console, f"\nended by a cap: {summary.stopped_by}{_under_higher(summary.stopped_by, result.run)}")
    say(console, "\n" + "\n".join(sentence for sentence in (summary.verdict, summary.caution) if sentence))
    if summary.last_fit:
        say(console, f"trained once more, with the rows that chose it: {summary.last_fit.rows} rows in all")
    if summary.test:
        say(console, counted(summary.test.after.report.n_rows, "test row"))
        console.print(_before_after(summary.test))
        _print_classes(console, summary.test)
    calibration = summary.calibration
    errors, rows = (calibration.test, "test") if calibration.test else (calibration.validation, "validation")
    if calibration.note:
        say(console, f"confidence: {calibration.note}")
    say(
        details(),
        f"calibration error on the {rows} rows {errors.before:.3f}, {errors.after:.3f} with temperature "
        f"{calibration.temperature:.2f}",
    )
    _print_teaching(console, summary)
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in summary.seconds.items() if round(value))
    say(
        console,
        f"time: {seconds or 'under a second'}\nreport: {result.run}/report.html\nmodel: {result.run}/models/best",
    )
    run = shlex.quote(str(result.run))
    say(console, f"Next: pgkd classify {run} FILE, or pgkd serve {run}")


def _under_higher(stopped_by: str, run: Path | None) -> str:
    """How to go on, where the cap is one that has an option."""
    option = next((name for key, name in options_of(Caps).items() if key in stopped_by), None)
    return f"\nto go on under a higher one: {_resuming(run)} {option} N" if run and option else ""


def _print_teaching(console: Console, summary: RunResult) -> None:
    samples, usage = summary.samples, summary.teacher
    if samples.asked:
        say(
            console,
            f"samples: {samples.asked} asked for, {samples.parsed} read, {samples.accepted} accepted; "
            f"rejected: {by_rule(samples.rejected) or 'none'}"
            f"{f'; not readable: {samples.malformed}' if samples.malformed else ''}",
        )
    if usage.requests:
        say(
            console,
            f"teacher: {counted(usage.requests, 'request')}, {usage.usage}, {money(usage.cost, usage.currency)}",
        )
    for share in summary.teachers:
        say(
            console,
            f"  {share.teacher}: {counted(share.steps, 'step')}, {share.accepted} of {share.asked} samples accepted"
            f"{f' (rejected: {by_rule(share.rejected)})' if share.rejected else ''}, validation loss "
            f"{share.loss_change:+.4f}, {money(share.cost, usage.currency)}",
        )


def _before_after(test: BeforeAfter) -> Table:
    """One column of figures where the returned model is the plain student."""
    is_plain = test.after == test.before
    names = ["", "plain student"] + ([] if is_plain else ["returned model", "change", "95 % interval"])
    table = _table(names)
    for name, title in NAMES.items():
        old, new = getattr(test.before.report, name), getattr(test.after.report, name)
        gain = test.gain.get(name)
        interval = f"{gain.low:+.3f} to {gain.high:+.3f}" if gain else ""
        table.add_row(title, *[f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}", interval][: len(names) - 1])
    old, new = test.before.loss, test.after.loss
    table.add_row("loss", *[f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}", ""][: len(names) - 1])
    return table


def _print_classes(console: Console, test: BeforeAfter) -> None:
    changes = class_changes(test.before.report, test.after.report)
    winners = [row for row in changes if row[2] > row[1]][:WINNERS_AND_LOSERS]
    losers = [row for row in reversed(changes) if row[2] < row[1]][:WINNERS_AND_LOSERS]
    if not changes:
        return
    say(console, "F1 per class on the test rows: largest gains and losses")
    table = _table(["class", "before", "after", "change", "rows"])
    for label, old, new, support in (*winners, *reversed(losers)):
        table.add_row(Text(without_controls(label)), f"{old:.2f}", f"{new:.2f}", f"{new - old:+.2f}", str(support))
    console.print(table)


def _table(columns: Sequence[str]) -> Table:
    """Names in the first column, figures in the others."""
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def show_dry_run(task: Task, config: PGKDConfig, asks: bool = True) -> None:
    """
    Args:
        asks: Whether it is about a run, whose teachers have to be there.
    """
    missing = refusals(config) if asks else []
    shown = preview(task, config)
    console = terminal.results()
    for prompt in filter(None, (*shown.prompts[:1], shown.labelling)):
        for message in prompt:
            console.print(f"--- {message.role} ---", style="bold")
            say(console, message.content)
        console.print("---", style="bold")
    say(
        console,
        f"prompt {shown.template.name!r}, {_calls(shown, config)}. No model is trained yet: report and predictions "
        f"above are placeholders.\nestimate: {_estimate(shown, task, config)}",
    )
    for problem in missing:
        say(terminal.notes(), f"a run would end: {problem}")


def _calls(shown: Preview, config: PGKDConfig) -> str:
    """What comes after the prompt that is shown: the calls that can be foreseen."""
    steps, requests = config.pgkd.num_kd_steps, len(shown.requests)
    verifying = steps * config.pgkd.pgkd_batch_size if config.guardrails.verify else 0
    if config.teacher.mode == "agent":
        from pgkd_agent.teacher.agent import MAX_TOOL_CALLS

        begins = f"with which each of {counted(steps, 'step')} begins (at most {MAX_TOOL_CALLS} tool calls)"
        return begins + (f"; up to {counted(verifying, 'call')} verify the samples" if verifying else "")
    more = f", and up to {verifying} more to verify the samples" if verifying else ""
    make = "makes" if steps == 1 else "make"
    calls = f"{counted(steps, 'step')} {make} {counted(steps * requests, 'call')}{more}, repetitions apart"
    writing = f"first of {counted(requests, 'request')} in a KD step; {calls}" if requests else "which writes nothing"
    labels = f", and a call for each of {counted(config.pgkd.labels_per_step, 'text')} to label in each step"
    return writing + (labels if shown.labelling else "")


def _estimate(shown: Preview, task: Task, config: PGKDConfig) -> str:
    prices = load_prices(config.teacher.prices)  # in any mode: a broken table would end the run
    if config.teacher.mode == "agent":
        return "none, how often an agent calls is up to the model; set a cap, e.g. --max-calls"
    return str(estimate(shown, task, config, [settings.spec for settings in members(config.teacher)], prices))
