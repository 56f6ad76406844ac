"""`pgkd push`."""

from __future__ import annotations

from typing import Annotated

import typer

from pgkd_agent.cli import options


def push(
    model: options.Model,
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the model hub; made where it is not there yet.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see.")] = False,
) -> None:
    """Put a saved model with its card on the model hub, into a private repository.

    Takes the token of `hf auth login` or HF_TOKEN, and the server of HF_ENDPOINT where that is set.
    """
    from pgkd_agent.runs import hub

    typer.echo(hub.push(model, repo, public))
