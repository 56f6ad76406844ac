"""`pgkd datasets`: the paper's datasets and where their files come from."""

from __future__ import annotations

import typer


def datasets() -> None:
    """Print the paper's datasets: size, files expected by --data-dir, hub copy, licence."""
    from pgkd_agent.data.presets import PREPARED, PRESETS

    for preset in PRESETS.values():
        typer.echo(f"{preset.name}: {preset.title}; {preset.classes} classes in the paper, its {preset.paper}")
        typer.echo(f"  files    {preset.files}")
        typer.echo(f"  hub      {preset.hub.id if preset.hub else 'no copy known: --data-dir is needed'}")
        typer.echo(f"  licence  {preset.licence}")
    typer.echo(f"Or, for any of them, {PREPARED}. The hub copies could not be tried when this was written.")
