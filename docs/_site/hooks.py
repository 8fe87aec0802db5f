"""What MkDocs runs while it builds the site: the tables of plugins, from their manifests, and the list of claims."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MARKER = "<!-- plugins -->"


CLAIMS = "claims/index.md"


def on_config(config: Any) -> None:
    """List the pages that ``benchmarks/claims.py --publish`` wrote after the page that explains them."""
    pages = sorted(path.name for path in (ROOT / "docs" / "claims").glob("*.md") if path.name != "index.md")
    section = next(section for section in _sections(config["nav"]) if CLAIMS in section)
    section.extend(f"claims/{name}" for name in pages)


def _sections(entries: list) -> Iterator[list]:
    """The navigation's lists, inner ones too."""
    yield entries
    for entry in entries:
        for inner in entry.values() if isinstance(entry, dict) else ():
            if isinstance(inner, list):
                yield from _sections(inner)


def on_page_markdown(markdown: str, **kwargs: object) -> str:
    """Put the tables where a page has the marker."""
    return markdown.replace(MARKER, plugin_tables()) if MARKER in markdown else markdown


def holds_manifest(folder: Path) -> bool:
    """Whether a package in ``folder`` is a plugin."""
    return any(folder.glob("*/ffplug.toml"))


def plugin_tables() -> str:
    """A section for each plugin of the repository, from its manifest; none needs to be installed or is imported."""
    folders = [ROOT, *sorted((ROOT / "plugins").glob("ffplug-*"))]
    os.environ["FFPLUG_PLUGINS"] = os.pathsep.join(map(str, filter(holds_manifest, folders)))
    sys.path.append(str(ROOT))
    from ffplug.plugin import discover

    found = [plugin for plugin in discover() if plugin.folder is not None and plugin.folder.is_relative_to(ROOT)]
    for plugin in found:
        if plugin.error:
            raise RuntimeError(f"plugin {plugin.name}: {plugin.error}")
    rows = [
        f"| [`{plugin.name}`](#{plugin.name}) | {plugin.summary} | {len(plugin.models)} | {len(plugin.configs)} |"
        for plugin in found
    ]
    lines = ["| distribution | what it is | models | recipes |", "| --- | --- | --- | --- |", *rows, ""]
    for plugin in found:
        lines += [f"## {plugin.name} {{ #{plugin.name} }}", "", f"{plugin.summary}.", ""]
        for title, table in (("Models", plugin.models), ("Recipes", plugin.configs)):
            if table:
                lines += [f"**{title}**", "", "| name | config |", "| --- | --- |"]
                lines += [f"| `{name}` | `{module}` |" for name, module in table.items()] + [""]
        if plugin.components:
            lines += ["**Components**", "", "| kind | registered types |", "| --- | --- |"]
            for kind, names in plugin.components.items():
                qualified = names if kind in ("ops", "converters") else [f"{plugin.package}.{name}" for name in names]
                lines.append(f"| {kind} | {', '.join(f'`{name}`' for name in sorted(qualified))} |")
            lines.append("")
        if plugin.weights:
            lines += ["**Weights**", "", "| name | models | licence | where from |", "| --- | --- | --- | --- |"]
            lines += [_weights_row(name, table) for name, table in plugin.weights.items()] + [""]
    return "\n".join(lines)


def _weights_row(name: str, table: Mapping[str, object]) -> str:
    models = ", ".join(f"`{model}`" for model in table.get("models", ()))
    origin = table.get("origin") or ", ".join(f"<{url}>" for url in table.get("urls", ()))
    return f"| `{name}` | {models} | {table.get('licence', '')} | {origin} |"
