"""`pgkd distill` and `pgkd train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pgkd_agent.cli import options
from pgkd_agent.cli.pushing import PushToHub
from pgkd_agent.config import PGKDConfig, build_config
from pgkd_agent.errors import ConfigError

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show the first prompt and the number of calls; train and call nothing."),
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", help="Send figures to tensorboard[:FOLDER], mlflow[:URI] or wandb[:PROJECT]; extras."),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON, all else to stderr.")]


def distill(
    train: options.Train = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    val: options.Val = None,
    test: options.Test = None,
    labels: options.Labels = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            help="local:smollm2, local:/path.gguf, openai:NAME or provider:NAME; several of them take turns.",
        ),
    ] = None,
    base_url: options.BaseUrl = None,
    student: options.StudentName = None,
    rows: options.Rows = None,
    seed: options.Seed = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Most KD steps.", show_default="10")] = None,
    recipe: options.Recipe = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Prompt variant, or a path to a .j2 template.")] = None,
    description: options.Description = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    out: options.Out = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    max_usd: options.MaxUSD = None,
    max_calls: options.MaxCalls = None,
    max_tokens: options.MaxTokens = None,
    max_minutes: options.MaxMinutes = None,
    cache: options.Cache = None,
    no_cache: options.NoCache = False,
    dry_run: DryRun = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume", help="Continue a run that was stopped; rows and settings are those of the run, caps may be new."
        ),
    ] = None,
    track: Track = None,
    push_to_hub: PushToHub = None,
    as_json: AsJSON = False,
) -> None:
    """Train a student, let an LLM write rows for its weak spots, keep the best model."""
    given = {name: value for name, value in locals().items() if value is not None and value is not False}
    caps = options.caps(max_usd, max_calls, max_tokens, max_minutes)
    outlets = options.Outlets(as_json, track or (), push_to_hub)
    if resume is not None:
        others = sorted(given.keys() - {"resume", "as_json", "track", "push_to_hub", *caps})
        _resume(resume, others, caps, outlets)
        return
    if cache and no_cache:
        raise ConfigError("--cache and --no-cache exclude each other")
    if dry_run and as_json:
        raise ConfigError("--json prints the result of a run, and --dry-run makes none")
    if dry_run and push_to_hub is not None:
        raise ConfigError("--push-to-hub is about the model of a run, and --dry-run makes none")
    specs = teacher or []
    settings = build_config(
        recipe=recipe,
        file=config,
        assignments=set_ or (),
        flags={
            "seed": seed,
            "data.dataset": dataset,
            "data.data_dir": data_dir,
            "data.rows": rows,
            "data.text_column": text_column,
            "data.label_column": label_column,
            "data.task_description": description,
            "student.name": student,
            "budget": caps,
            "teacher.spec": specs[0] if specs else None,
            "teacher.ensemble": [{"spec": spec} for spec in specs[1:]] or None,
            "teacher.cache": cache,
            "teacher.prompt": prompt,
            "pgkd.num_kd_steps": steps,
        },
    )
    if base_url is not None:
        settings = settings.model_copy(update={"teacher": options.at_server(settings.teacher, base_url)})
    if no_cache:
        settings = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"cache": None})})
    from pgkd_agent.cli.running import run_with_display, show_dry_run
    from pgkd_agent.pipeline import load_task

    task = load_task(train, val, test, labels, settings)
    if dry_run:
        show_dry_run(task, settings)
    else:
        out = out or _run_directory(train, settings)
        run_with_display(task, settings, out, outlets=outlets)


def train(
    train: options.Train = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    val: options.Val = None,
    test: options.Test = None,
    labels: options.Labels = None,
    student: options.StudentName = None,
    rows: options.Rows = None,
    seed: options.Seed = None,
    recipe: options.Recipe = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    out: options.Out = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    track: Track = None,
    push_to_hub: PushToHub = None,
    as_json: AsJSON = False,
) -> None:
    """Train the plain student alone (model 0), without a teacher."""
    settings = build_config(
        recipe=recipe,
        file=config,
        assignments=set_ or (),
        flags={
            "seed": seed,
            "data.dataset": dataset,
            "data.data_dir": data_dir,
            "data.rows": rows,
            "data.text_column": text_column,
            "data.label_column": label_column,
            "student.name": student,
            "pgkd.num_kd_steps": 0,
        },
    )
    from pgkd_agent.cli.running import run_with_display
    from pgkd_agent.pipeline import load_task

    task = load_task(train, val, test, labels, settings)
    out = out or _run_directory(train, settings)
    run_with_display(task, settings, out, outlets=options.Outlets(as_json, track or (), push_to_hub))


def _resume(run: Path, others: list[str], caps: dict[str, float], outlets: options.Outlets) -> None:
    if others:
        raise ConfigError(f"--resume takes rows and settings from the run; leave out {options.option_names(others)}")
    from pgkd_agent.cli.running import resume_with_display

    resume_with_display(run, caps, outlets)


def _run_directory(train: Path | None, settings: PGKDConfig) -> Path:
    if train is None:
        return options.default_path("run", Path(settings.data.dataset or ""))
    return options.default_path(train.resolve().parent.name or "run", train)
