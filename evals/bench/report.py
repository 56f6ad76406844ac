"""Rounds of figures as medians with their range or as means over seeds, ratios to ours, JSON and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Run = Mapping[str, Any]
"""One start of a contender: its `round`, `seed` and `figures`."""

ENOUGH_AGREEMENT = 0.995
"""Share of labels as of torch fp32, from which an engine of ours counts as giving the same answers."""

HEADINGS = {
    "seconds_per_epoch": "s an epoch",
    "seconds_total": "s in all",
    "student_seconds": "s of fits",
    "seconds_per_later_fit": "s a later fit",
    "epochs_per_later_fit": "epochs of it",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "test_loss": "test loss",
    "seen_loss": "of seen classes",
    "gflops": "GFLOP/s",
    "gemm_gflops": "of a matrix product",
    "share_of_ceiling": "share of it",
    "texts_per_second": "texts/s",
    "p50_ms": "one text, p50 ms",
    "p99_ms": "p99 ms",
    "agreement": "labels as torch fp32",
    "first_step_ms": "first step, ms",
    "later_steps_ms": "later steps, ms",
    "added_mib": "memory added, MiB",
    "peak_gib": "peak GiB",
}
"""Figures that are shown, in this order; the JSON has all."""

RATIOS = {
    "train": ("seconds_per_epoch", "seconds_total"),
    "infer": ("texts_per_second", "p50_ms"),
    "restart": ("student_seconds",),
}
"""By part, the figures of which the ratio to ours is shown; above 1 ours is faster."""

MORE_IS_BETTER = {"texts_per_second"}

OF_STUDENTS = ("accuracy", "macro_f1", "test_loss", "seen_loss", "seconds_total", "peak_gib")
"""Figures whose mean and deviation over seeds are shown for the part `student`."""


def summarize(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Median, least and most of each figure over the rounds that have it."""
    spread = {}
    for name, values in _measured(runs).items():
        spread[name] = {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}
    return spread


def over_seeds(runs: Sequence[Run]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation of the figures that all seeds have; of one seed the deviation is None."""
    return {
        name: {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
        for name, values in _measured(runs).items()
        if len(values) == len(runs)
    }


def _measured(runs: Sequence[Run]) -> dict[str, list[float]]:
    """The values of each figure; a figure that is None was not measured."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run["figures"].items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


def reference_of(race: Mapping[str, Any], figure: str) -> str | None:
    """What others are compared with: the first of ours; of engines the best one that answers as torch fp32 does."""
    ours = [entry for entry in race["contenders"] if entry["is_ours"] and entry["runs"]]
    if race["part"] == "infer":
        ours = [entry for entry in ours if entry["summary"].get("agreement", {}).get("median", 0) >= ENOUGH_AGREEMENT]
        ours.sort(key=lambda entry: entry["summary"][figure]["median"], reverse=figure in MORE_IS_BETTER)
    return ours[0]["name"] if ours else None


def add_ratios(race: dict[str, Any]) -> None:
    """How many times as good as each contender the reference is: by round, since the runs of a round are neighbours."""
    figures = RATIOS.get(race["part"], ())
    race["references"] = {figure: reference_of(race, figure) for figure in figures}
    by_name = {entry["name"]: entry for entry in race["contenders"]}
    for entry in race["contenders"]:
        entry["ratios"] = {}
        for figure, name in race["references"].items():
            if name in (None, entry["name"]):
                continue
            ours, theirs = _by_round(by_name[name], figure), _by_round(entry, figure)
            ratios = [theirs[number] / ours[number] for number in ours if number in theirs]
            if figure in MORE_IS_BETTER:
                ratios = [1 / ratio for ratio in ratios]
            if ratios:
                entry["ratios"][figure] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def _by_round(entry: Mapping[str, Any], figure: str) -> dict[int, float]:
    return {run["round"]: run["figures"][figure] for run in entry["runs"] if figure in run["figures"]}


def to_markdown(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        f"{results['date']}, commit {results['commit'] or 'unknown'}. {machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['flags']) or 'no flags known'}), {machine['system']}; load at the start "
        f"{machine['load_at_start']:.2f}; OMP_NUM_THREADS {results['threads'] or 'not set'}.",
        "",
        *(f"Versions, {whose}: {_listed(found)}." for whose, found in results["versions"].items()),
        "",
        f"    {results['command']}",
        "",
        "Medians (least to most) over rounds, in each of which the contenders ran one after the other. "
        "`x` columns: how many times as fast the reference is, which is named below the table.",
    ]
    for race in results["races"]:
        table = _seed_table(race) if race["part"] == "student" else _table(race)
        lines += ["", f"## {race['part']}: {race['dataset']}", "", *table]
    return "\n".join(lines) + "\n"


def _table(race: Mapping[str, Any]) -> list[str]:
    entries = race["contenders"]
    shown = [name for name in HEADINGS if any(name in entry["summary"] for entry in entries)]
    ratios = [figure for figure in RATIOS.get(race["part"], ()) if any(figure in entry["ratios"] for entry in entries)]
    heads = [*(HEADINGS[name] for name in shown), *(f"x {HEADINGS[figure]}" for figure in ratios)]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for entry in entries:
        if not entry["runs"]:
            lines.append(f"| {entry['name']} | {entry['failure'] or 'not run'} |" + " |" * (len(heads) - 1))
            continue
        cells = [_cell(entry["summary"].get(figure)) for figure in shown]
        cells += [_cell(entry["ratios"].get(figure)) for figure in ratios]
        lines.append(f"| {entry['name']} | {' | '.join(cells)} |")
    for figure in ratios:
        lines += ["", f"x {HEADINGS[figure]}: against {race['references'][figure]}."]
    return lines


def _seed_table(race: Mapping[str, Any]) -> list[str]:
    """One number a cell; a figure that a seed lacks has none."""
    heads = ["seeds", *(head for figure in OF_STUDENTS for head in (HEADINGS[figure], "sd"))]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    for entry in race["contenders"]:
        if not entry["runs"]:
            lines.append(f"| {entry['name']} | {entry['failure'] or 'not run'} |" + " |" * (len(heads) - 1))
            continue
        found = [entry["over_seeds"].get(figure, {}) for figure in OF_STUDENTS]
        values = [value for figure in found for value in (figure.get("mean"), figure.get("sd"))]
        cells = [str(len(entry["runs"])), *("" if value is None else _number(value) for value in values)]
        lines.append(f"| {entry['name']} | {' | '.join(cells)} |")
    failed = [entry for entry in race["contenders"] if entry["failure"] and entry["runs"]]
    return [
        *lines,
        "",
        *(line for entry in failed for line in (f"{entry['name']}, a later seed: {entry['failure']}.", "")),
        "Means and standard deviations over seeds, on the same rows. Losses are mean cross-entropies of test rows, in "
        'nats; "of seen classes" leaves out rows of classes without training rows, of which some contenders know '
        "nothing: their loss on all rows is infinite, and not given.",
    ]


def _cell(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return ""
    if spread["min"] == spread["max"]:
        return _number(spread["median"])
    return f"{_number(spread['median'])} ({_number(spread['min'])} to {_number(spread['max'])})"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def _listed(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items()) or "not installed"
