"""The providers by name: those of the package, those that are registered, those that installed packages announce."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from pgkd_agent.teacher.providers.provider import Provider

logger = logging.getLogger(__name__)

BUILT_IN = ("anthropic", "azure", "bedrock", "local", "ollama", "openai")
"""Modules beside this one, each with a `PROVIDER`; `other` stands for all the rest."""
ENTRY_POINTS = "pgkd_agent.providers"
"""Group under which an installed package announces a provider, for the command line too."""

_providers: dict[str, Provider] = {}


def register(provider: Provider) -> None:
    """Make `NAME:model` a teacher; of two of the same name the later one holds, and it wins over entry points."""
    _providers[provider.name] = provider


def provider_named(name: str) -> Provider:
    """The provider of this name; for one that nobody registered, what LangChain knows."""
    _load()
    return _providers.get(name) or _built_in("other")


def registered() -> tuple[Provider, ...]:
    """All providers, last the one that stands for the rest."""
    _load()
    return (*_providers.values(), _built_in("other"))


@cache
def _load() -> None:
    """Not when this module is imported: providers read errors, and errors are read with the help of all providers."""
    found = [_built_in(module) for module in BUILT_IN]
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found.append(entry.load())
        except Exception as error:  # another package's: any type
            logger.warning("the provider %s of %s cannot be loaded: %s", entry.name, entry.value, error)
    for provider in found:
        _providers.setdefault(provider.name, provider)


def _built_in(module: str) -> Provider:
    provider: Provider = import_module(f"{__package__}.{module}").PROVIDER
    return provider
