"""`pgkd schema`: JSON Schemas, for editors and programs."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    name: Annotated[str, typer.Argument(help="config, samples, result, prices, comparison or prompt_suite.")],
) -> None:
    """Print a JSON Schema; a YAML file whose first line names it completes and checks itself in an editor.

    The line: # yaml-language-server: $schema=config.schema.json
    """
    from pgkd_agent.schemas import render, schema_of

    typer.echo(render(schema_of(name)), nl=False)
