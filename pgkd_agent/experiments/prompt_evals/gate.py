"""A suite as a regression test: what is worse than in an earlier result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pgkd_agent.errors import ConfigError
from pgkd_agent.experiments.prompt_evals.results import RATES


def read_baseline(file: Path) -> dict[str, Any]:
    """A `results.json` of `pgkd eval prompts`.

    Raises:
        ConfigError: It is none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        dict(_scores(content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no results.json of `pgkd eval prompts`: {type(error).__name__}: {error}"
        ) from error
    return dict(content)


def losses_against(baseline: Mapping[str, Any], now: Mapping[str, Any], tolerated: float) -> list[str]:
    """Scores that are lower than in the baseline by more than is tolerated, or missing where it has them; in words.

    Scores are parse rate, acceptance rate, and the metrics of the students; of prompts that label, the share that the
    teacher names right, alone and with the other rows. Each is in [0, 1]. What the evaluation now is
    not about does not count.

    Raises:
        ConfigError: The two have no dataset, variant and teacher in common.
    """
    before, after = dict(_scores(baseline)), dict(_scores(now))
    evaluated = [_place(result) for result in now["prompts"]]
    if not {place[:3] for place in before} & {*evaluated}:
        raise ConfigError("the baseline and this evaluation have no dataset, variant and teacher in common")
    found = []
    for (dataset, variant, teacher, score), value in before.items():
        if (dataset, variant, teacher) not in evaluated:
            continue
        current = after.get((dataset, variant, teacher, score))
        where = f"{dataset}, {variant}{f', {teacher}' if teacher else ''}: {score.replace('_', ' ')}"
        if current is None:
            found.append(f"{where} was not measured, {value:.3f} before")
        elif current < value - tolerated:
            found.append(f"{where} {current:.3f}, {value:.3f} before")
    return found


def _scores(results: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, str, str], float]]:
    for result in results["prompts"]:
        place = _place(result)
        for who in ("teacher", "together"):
            if who in result.get("right", {}):
                yield (*place, f"right of {who}"), float(result["right"][who])
        for rate in RATES:
            value = (result.get("teaching") or {}).get(rate)
            if value is not None:
                yield (*place, rate), float(value)
        for name, spread in result.get("students", {}).items():
            yield (*place, name), float(spread["mean"])


def _place(result: Mapping[str, Any]) -> tuple[str, str, str]:
    return result["dataset"], result["variant"], result["teacher"]
