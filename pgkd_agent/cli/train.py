"""`pgkd train`."""

from __future__ import annotations

from pgkd_agent.cli import options
from pgkd_agent.cli.groups import grouped


@grouped
def train(
    *,
    data: options.Data,
    reading: options.Reading,
    out: options.Out = None,
    sources: options.RunSources,
    outlets: options.Outlets,
) -> None:
    """Train the plain student alone (model 0), without a teacher."""
    from pgkd_agent.cli.running import run_with_display

    settings = options.settings_of(data, reading, sources, more={"pgkd.num_kd_steps": 0})
    run_with_display(data.task(settings), settings, out or data.run_directory(settings), outlets=outlets)
