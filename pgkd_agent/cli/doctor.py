"""`pgkd doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pgkd_agent.cli import options, terminal
from pgkd_agent.cli.groups import grouped


@grouped
def doctor(
    *,
    teacher: Annotated[str | None, typer.Option(help="provider:model.", show_default="local:smollm2")] = None,
    server: options.Server,
    sources: options.RunSources,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look whether machine, student and teacher are ready: versions, disk, device, keys, whether the teacher answers.

    Takes the settings that a run would take. Hosted teachers other than OpenAI's are asked for one word. The exit code
    is that with which a run would end.
    """
    from pgkd_agent.cli.diagnosis import Finding, diagnose

    console = terminal.results()
    found: list[Finding] = []
    for finding in diagnose(options.settings_of(server, sources, more={"teacher.spec": teacher})):
        found.append(finding)
        if not as_json:
            _print(console, finding)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    raise typer.Exit(next((finding.exit_code for finding in found if finding.exit_code), 0))


def _print(console: Any, finding: Any) -> None:
    mark = "[green]ok[/]  " if not finding.problem else "[red]no[/]  " if finding.exit_code else "[yellow]low[/] "
    console.print(mark, end="")
    text = "; ".join(filter(None, (finding.found, finding.problem)))
    terminal.say(console, f"{finding.what}: {text}")
