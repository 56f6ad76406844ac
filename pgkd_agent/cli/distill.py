"""`pgkd distill`, also of a run that was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pgkd_agent.cli import options
from pgkd_agent.cli.groups import grouped, option, refuse
from pgkd_agent.errors import ConfigError


@dataclass(frozen=True)
class Teaching(options.Batch):
    """Who teaches, and what is asked for."""

    teacher: list[str] | None = option(
        "local:smollm2, local:/path.gguf, openai:NAME or provider:NAME; several of them take turns."
    )
    base_url: str | None = option("Another server that speaks the provider's protocol.")
    steps: int | None = option("Most KD steps.", key="pgkd.num_kd_steps", show_default="10")
    unlabelled: Path | None = option("Texts without labels, of which the teacher labels those the student needs most.")
    labels_per_step: int | None = option(
        "Texts of --unlabelled that the teacher labels in a KD step.", key="pgkd.labels_per_step", show_default="100"
    )
    prompt: str | None = option("Prompt variant, or a path to a .j2 template.", key="teacher.prompt")
    description: str | None = option("What the texts are; tells the teacher the task.", key="data.task_description")
    cache: Path | None = option("SQLite file with replies that runs share; a hit costs nothing.", key="teacher.cache")

    def teachers(self) -> dict[str, Any]:
        """The first one and the others as settings."""
        specs = self.teacher or []
        others = [{"spec": spec} for spec in specs[1:]]
        return {"teacher.spec": specs[0] if specs else None, "teacher.ensemble": others or None}


@grouped
def distill(
    context: typer.Context,
    *,
    data: options.Data,
    teaching: Teaching,
    reading: options.Reading,
    out: options.Out = None,
    sources: options.RunSources,
    caps: options.Caps,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the first prompt and the number of calls, or what a run would refuse; train and call nothing.",
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue a run that was stopped; rows and settings are those of the run, caps may be new."),
    ] = None,
    outlets: options.Outlets,
) -> None:
    """Train a student, let an LLM write rows for its weak spots, keep the best model."""
    from pgkd_agent.cli.running import resume_with_display, run_with_display, show_dry_run

    if resume is not None:
        message = "--resume takes rows and settings from the run; leave out {given}"
        refuse(context, message, options.Data, Teaching, options.Reading, options.RunSources, "out", "dry_run")
        resume_with_display(resume, options.flags_of(caps), outlets)
        return
    if dry_run and outlets.as_json:
        raise ConfigError("--json prints the result of a run, and --dry-run makes none")
    if dry_run and outlets.push_to_hub is not None:
        raise ConfigError("--push-to-hub is about the model of a run, and --dry-run makes none")
    if teaching.labels_per_step and teaching.unlabelled is None:
        raise ConfigError("--labels-per-step is about the texts of --unlabelled, which is not given")
    settings = options.settings_of(data, teaching, reading, sources, caps, more=teaching.teachers())
    task = data.task(settings, teaching.unlabelled)
    if dry_run:
        show_dry_run(task, settings)
    else:
        run_with_display(task, settings, out or data.run_directory(settings), outlets=outlets)
