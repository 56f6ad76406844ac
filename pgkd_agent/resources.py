"""Find `prompts/` and `schemas/`: in an installed package, else in the checkout beside it."""

from __future__ import annotations

from pathlib import Path

from pgkd_agent.errors import ConfigError


def resource_folder(name: str) -> Path:
    """Return the folder `name`; a wheel carries it inside the package, an editable install beside it.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).parent
    places = [package / "_resources" / name, package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(f"no folder {name!r}; looked in {places[0]} and {places[1]}; reinstall pgkd-agent")
