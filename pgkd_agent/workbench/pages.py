"""`Workbench`: what each page shows, read anew from the run directory whenever it is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query

from pgkd_agent.errors import ConfigError, DataError
from pgkd_agent.runs.report.page import charts, page_environment, render
from pgkd_agent.runs.report.story import damaged, read_story
from pgkd_agent.runs.stored import POOL_FILE, read_run
from pgkd_agent.types import label_names
from pgkd_agent.workbench import calls, comparing, confusion, mistakes, reviewing
from pgkd_agent.workbench.filters import CallFilters, MistakeFilters, Page, SampleFilters, choices
from pgkd_agent.workbench.listing import HELPED, NOT_ENDED, NOT_TESTED, PLAIN, effect_of, line_of, method_of, runs_in


class Workbench:
    """Each page takes what stands in its address, and is HTML.

    Args:
        folder: Of run directories, or one of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._templates = page_environment("pgkd_agent.workbench")
        self._templates.globals["link"] = _link

    def page(self, template: str, **values: Any) -> str:
        """A page from a template."""
        here = template.partition(".")[0]
        return render(self._templates, template, "this page", folder=str(self._folder), here=here, **values)

    def error(self, sentence: str, run: str) -> str:
        """What is wrong; with the way to the other pages of the run, where there is one of this name."""
        about = {"run": run} if self._folder.is_dir() and run in runs_in(self._folder) else {}
        return self.page("error.html.j2", sentence=sentence, **about)

    def index(self) -> str:
        """All runs."""
        lines = [line_of(name, path) for name, path in runs_in(self._folder).items()]
        return self.page("index.html.j2", lines=lines)

    def overview(self, run: str) -> str:
        """What a run came to."""
        with self._reading(run) as path:
            story, stored = read_story(path), read_run(path)
            effect = effect_of(story.result)
            others = [name for name in runs_in(self._folder) if name != run]
            method = method_of(stored.config, stored.meta, (path / POOL_FILE).is_file())
            next_step, next_command = _next(path, effect)
            return self.page(
                "overview.html.j2", run=run, story=story, effect=effect, charts=charts(story), others=others,
                method=method, next_step=next_step, next_command=next_command,
            )  # fmt: skip

    def samples(self, filters: Annotated[SampleFilters, Query()]) -> str:
        """What the teacher wrote and labelled, to be accepted and rejected."""
        with self._reading(filters.run) as path:
            stored, samples = read_run(path), reviewing.read_samples(path)
            found = reviewing.filtered(samples, filters)
            page = Page.cut(found, filters.page, len(samples))
            return self.page(
                "samples.html.j2", run=filters.run, filters=filters, page=page,
                matches=reviewing.matches_of(page.rows, path, stored), labels=label_names(stored.task.taxonomy),
                choices={
                    name: choices(sample[column] for sample in samples) for name, column in reviewing.FILTERED.items()
                },
                decided=sum(sample["reviewed"] for sample in samples), review_file=path / reviewing.REVIEW_FILE,
                next_command=_importing(path),
            )  # fmt: skip

    def review(self, run: str, decision: reviewing.Decision) -> dict[str, Any]:
        """Write down a decision; what the sample is now, and how many are decided."""
        with self._reading(run) as path:
            sample, decided = reviewing.decide(path, read_run(path).task.taxonomy, decision)
        return {**{name: sample[name] for name in ("label", "status", "reviewed")}, "decided": decided}

    def mistakes(self, filters: Annotated[MistakeFilters, Query()]) -> str:
        """Test rows that one of the models has wrong."""
        with self._reading(filters.run) as path:
            rows = mistakes.read_test_rows(path)
            found = mistakes.filtered(rows, filters)
            wrong = [row for row in rows if row.kind != mistakes.RIGHT]
            return self.page(
                "mistakes.html.j2", run=filters.run, filters=filters, page=Page.cut(found, filters.page, len(rows)),
                kinds=mistakes.KINDS, choices={
                    "kind": choices(row.kind for row in wrong),
                    "label": choices(row.gold for row in wrong),
                    "taken_for": choices(row.said_by(filters.model)[0] for row in wrong),
                },
            )  # fmt: skip

    def confusion(self, run: str) -> str:
        """Which classes are taken for which."""
        with self._reading(run) as path:
            story = read_story(path)
            if story.before is None or story.after is None:
                raise DataError(f"{run} has no model yet, and so nothing is confused")
            labels = confusion.most_confused(story.before, story.after)
            models = [("Before: the plain student", "before", story.before)]
            if not story.is_plain:
                models.append(("After: the returned model", "after", story.after))
            return self.page(
                "confusion.html.j2", run=run, story=story, labels=labels,
                maps=[confusion.heat_map(*model, labels) for model in models],
                classes=list(zip(story.before.report.classes, story.after.report.classes, strict=True)),
            )  # fmt: skip

    def calls(self, filters: Annotated[CallFilters, Query()]) -> str:
        """The calls to the teacher."""
        with self._reading(filters.run) as path:
            prices = calls.prices_of(read_run(path).config.teacher.prices)
            found, every = calls.read_calls(path, filters, prices)
            return self.page(
                "calls.html.j2", run=filters.run, filters=filters, page=Page.cut(found, filters.page, len(every)),
                currency=prices.currency if prices else "", choices={
                    "step": choices(call["kd_step"] for call in every),
                    "outcome": choices(call["outcome"] for call in every),
                },
            )  # fmt: skip

    def call(self, run: str, number: int) -> str:
        """One call: prompt, reply, and what became of the samples in it."""
        with self._reading(run) as path:
            prices = calls.prices_of(read_run(path).config.teacher.prices)
            call = calls.read_call(path, number, prices)
            return self.page(
                "call.html.j2", run=run, call=call, currency=prices.currency if prices else "",
                written=calls.written_in(path, call), numbers=calls.neighbours(path, number),
            )  # fmt: skip

    def compare(self, run: str, other: str) -> str:
        """Two runs on the same test rows."""
        with self._reading(run) as first, self._reading(other) as second:
            comparison = comparing.compare((first, read_run(first)), (second, read_run(second)))
            return self.page("compare.html.j2", run=run, other=other, comparison=comparison)

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """The directory of a run by its name in the list: of no other folder, whatever the name says.

        Raises:
            ConfigError: There is no run of this name.
            StorageError: Its files are not what they should be.
        """
        path = runs_in(self._folder).get(name)
        if path is None:
            raise ConfigError(f"there is no run {name!r} in {self._folder}")
        try:
            yield path
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise damaged(path, error) from error


def _link(path: str, **values: Any) -> str:
    """An address with what is set of `values`."""
    known = {key: value for key, value in values.items() if value not in ("", None)}
    return f"{path}?{urlencode(known, errors='surrogateescape')}"


def _next(path: Path, effect: str) -> tuple[str, str]:
    """What to do with a run, and the command for it."""
    run = shlex.quote(str(path))
    if effect == NOT_ENDED:
        return (
            "Go on with it, if it does not go on now. No call that was answered is paid again.",
            f"pgkd distill --resume {run}",
        )
    if effect == NOT_TESTED:
        return "Find out how good the model is, on labelled rows that it has not seen.", f"pgkd evaluate {run} FILE"
    if effect in (HELPED, PLAIN):
        return "Use the model.", f"pgkd classify {run} FILE"
    return "Read what the teacher wrote, reject what is wrong, and train again on the rest.", _importing(path)


def _importing(path: Path) -> str:
    review = shlex.quote(str(path / reviewing.REVIEW_FILE))
    return f"pgkd samples import {shlex.quote(str(path))} {review} --out {shlex.quote(f'{path.resolve()}-reviewed')}"
