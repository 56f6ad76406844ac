"""The documentation site, built as `make site` builds it: whole, and by itself."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pydantic import BaseModel

import pgkd_agent
from docs import build_site
from pgkd_agent.config import PGKDConfig

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None and not os.environ.get("CI"), reason="needs the extra 'docs'"
)
SECTIONS = ("Args:", "Raises:", "Returns:", "Attributes:")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Tags that a browser loads something for."""


@dataclass
class Page(HTMLParser):
    """What stands in a page: its anchors, where its links lead, what is loaded with it, and its words."""

    text: str
    ids: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.ids |= {found["id"]} if "id" in found else set()
        self.links |= {found["href"]} if tag == "a" and "href" in found else set()
        self.loaded |= {found[LOADED[tag]]} if LOADED.get(tag) in found else set()

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site.build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html") if file.name != "404.html"}


def test_links_and_pictures_lead_somewhere_and_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert len(pages) > 30
    for file, page in pages.items():
        for address in page.links | page.loaded:
            parts = urlsplit(address)
            if parts.scheme and address in page.links - page.loaded:
                continue  # to be followed by who wants to
            assert not parts.scheme and not parts.netloc, f"{file.name} loads {address}"
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{file.name} leads to {address}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):  # the theme's own
                assert unquote(parts.fragment) in pages[target].ids, f"{file.name} leads to {address}"


def test_public_names_and_settings_are_all_there(site: Path, pages: dict[Path, Page]) -> None:
    names, settings = pages[site / "docs" / "api.html"], pages[site / "docs" / "settings.html"]
    assert {f"pgkd_agent.{name}" for name in pgkd_agent.__all__} <= names.ids
    assert {f"pgkd_agent.config.settings.{name}" for name in fields(PGKDConfig)} <= settings.ids
    assert "One of the paper's datasets by name" in "".join(settings.words)
    words = [words.strip() for page in (names, settings) for words in page.words]
    run_on = [word for word in words if word not in SECTIONS and any(name in word for name in SECTIONS)]
    assert not run_on, "a section of a docstring needs an empty line above it"


def fields(section: type[BaseModel]) -> Iterator[str]:
    """Names of all settings, with the class that they are fields of."""
    for name, value in section.model_fields.items():
        if isinstance(value.annotation, type) and issubclass(value.annotation, BaseModel):
            yield from fields(value.annotation)
        else:
            yield f"{section.__name__}.{name}"
