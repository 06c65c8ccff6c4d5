"""The documentation as readers get it: built once for all tests, and taken apart.

This module has the extensions in ``docs/_ext`` as modules, the build, and the parts of its pages
that tests look at: the anchors, the links, the code in a text, and the entries of the reference.
"""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

from . import source

EXTENSIONS = source.ROOT / "docs/_ext"

# Elements without an end.
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


def extension(name: str) -> ModuleType:
    """A module of ``docs/_ext``; they import each other without a package."""
    if str(EXTENSIONS) not in sys.path:
        sys.path.insert(0, str(EXTENSIONS))
    return importlib.import_module(name)


@dataclass(frozen=True)
class Code:
    """A piece of code in a text."""

    text: str
    link: str | None
    in_heading: bool


@dataclass
class Page:
    """What a page has."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)  # the text of each entry, by its anchor
    signatures: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    """Fills a :class:`Page`."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._open: list[tuple[str, dict[str, Any]]] = []
        self._code: str | None = None
        self._signatures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if anchor := given.get("id"):
            self.page.anchors.add(anchor)
            if tag == "dt":
                self.page.signatures[anchor] = self.page.entries[anchor] = ""
                self._signatures = [anchor]
        if tag == "a" and (link := given.get("href")):
            self.page.links.append(link)
        if tag == "code" and self._inside("article"):
            self._code = ""
        if tag not in _VOID:
            if tag == "dd":
                given["entry"], self._signatures = self._signatures, []  # type: ignore[assignment]
            self._open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        if tag == "code" and self._code is not None:
            headings = ("h1", "h2", "h3", "h4", "h5", "h6", "dt")
            link = next((given.get("href") for name, given in self._open if name == "a"), None)
            code = Code(self._code, link, any(self._inside(h) for h in headings))
            self.page.codes.append(code)
            self._code = None
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._code is not None:
            self._code += data
        if self._signatures and self._inside("dt"):
            self.page.signatures[self._signatures[0]] += data
        for tag, given in self._open:
            for anchor in given.get("entry", ()) if tag == "dd" else ():
                self.page.entries[anchor] += data

    def _inside(self, tag: str) -> bool:
        return any(open_tag == tag for open_tag, _ in self._open)


def read(text: str) -> Page:
    """Take a page apart."""
    reader = _Reader()
    reader.feed(text)
    return reader.page


@dataclass(frozen=True)
class Site:
    """A finished build."""

    folder: Path
    errors: str

    @functools.cached_property
    def pages(self) -> dict[str, Page]:
        """Each page by its path."""
        return {
            path.relative_to(self.folder).as_posix(): read(path.read_text(encoding="utf-8"))
            for path in self.folder.rglob("*.html")
            if "_static" not in path.parts
        }

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """The page of each documented Python name."""
        content = (self.folder / "objects.inv").read_bytes().split(b"\n", 4)[-1]
        found = {}
        for line in zlib.decompress(content).decode().splitlines():
            name, kind, _priority, place, _shown = line.split(" ", 4)
            if kind.startswith("py:"):
                found[name] = place.partition("#")[0]
        return found

    def text(self, name: str) -> str:
        """The text of an object's entry."""
        return self._page_of(name).entries.get(name, "").strip()

    def signature(self, name: str) -> str:
        """The signature of an object's entry."""
        return self._page_of(name).signatures.get(name, "").strip()

    def _page_of(self, name: str) -> Page:
        return self.pages.get(self.names.get(name, ""), Page())


def sphinx(folder: Path, out: Path) -> str:
    """Run Sphinx without a network: the warnings and errors."""
    nowhere = "http://127.0.0.1:9"
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", f"{out}.trees"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(folder), str(out)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "http_proxy": nowhere, "https_proxy": nowhere, "NO_COLOR": "1"},
    )
    return done.stderr


@functools.cache
def build() -> Site:
    """Build the documentation as ``make docs`` does."""
    out = Path(tempfile.mkdtemp(prefix="nurseryio-docs-")) / "html"
    return Site(out, sphinx(source.ROOT / "docs", out))
