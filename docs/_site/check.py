"""Look over the built site: every link and anchor leads somewhere, nothing comes from another host, no name is missing.

Run after ``mkdocs build`` as ``python docs/_site/check.py build/site``; ends with a list of what is wrong and status 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import griffe

ROOT = Path(__file__).parents[2]
SOURCES = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src"}
PUBLIC = ("structures", "datasets", "models", "ops", "evaluation", "visualization", "engine", "bulk", "apis.converters")


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag."""
        given = dict(attrs)
        self.anchors |= {value for value in (given.get("id"), given.get("name")) if value}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        source = given.get(SOURCES.get(tag, ""))
        if source and given.get("rel") != "canonical":
            self.loads.append(source)


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the site in the folder ``site``, a line each."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links start at the root of a host
        name = path.relative_to(site.resolve())
        for load in page.loads:
            if urlsplit(load).netloc:
                yield f"{name} loads {load}: the site must work without the network"
            elif not load.startswith("data:") and not _target(path, load).is_file():
                yield f"{name} loads {load}, which is not there"
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme not in ("http", "https") or "." not in parts.netloc:
                    yield f"{name} links to {link}, which is no address"
                continue
            target = _target(path, link) if parts.path else path
            if not target.is_file():
                yield f"{name} links to {link}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name} links to {link}, but that page has no such anchor"
    anchors = set().union(*(page.anchors for page in pages.values()))
    package = griffe.load("ffplug", search_paths=[ROOT])
    for module in PUBLIC:
        for public in package[module].exports or ():
            path = f"ffplug.{module}.{public}"
            # A function whose module has the same name stands under both.
            if not anchors & {path, f"{path}.{public}"}:
                yield f"the reference does not show {path}"


def _target(page: Path, link: str) -> Path:
    return (page.parent / unquote(urlsplit(link).path)).resolve()


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    sys.exit("\n".join(found) or None)
