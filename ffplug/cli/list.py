"""``ffplug list``: the installed plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click


@click.command("list")
@click.option("--models", is_flag=True, help="Print the names of all models, one a line, and nothing else.")
@click.option("--check", is_flag=True, help="Try to import each plugin for real, in a process of its own.")
def command(models: bool, check: bool) -> None:
    """Show the installed plugins with version, what each registers, and what is wrong with it.

    Nothing is imported: manifests are read, and modules parsed for imports that can't succeed.
    """
    from ffplug.plugin import discover, foresee_failure, list_models

    if models:
        for name in list_models():
            click.echo(name)
        return
    plugins = discover()
    failures = check_imports([plugin.package for plugin in plugins if plugin.error is None]) if check else {}
    for plugin in plugins:
        error = plugin.error or (failures[plugin.package] if check else foresee_failure(plugin))
        click.echo(f"{plugin.name} {plugin.version}" + (f" - {plugin.summary}" if plugin.summary else ""))
        if error:
            click.echo(f"  BROKEN: {error}")
        for kind, names in plugin.components.items():
            click.echo(f"  {kind}: {', '.join(names)}")
        if plugin.models:
            click.echo(f"  model names: {', '.join(plugin.models)}")
        if plugin.configs:
            click.echo(f"  recipes: {', '.join(plugin.configs)}")


def check_imports(packages: Sequence[str]) -> dict[str, str | None]:
    """Import all of each plugin in a process of its own, several at once: what went wrong, or None, by package."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(packages, pool.map(_check_import, packages), strict=True))


def _check_import(package: str) -> str | None:
    program = (
        "import sys; from ffplug.plugin import discover, load\n"
        "try:\n    load(next(p for p in discover() if p.package == sys.argv[1]))\n"
        "except Exception as error:\n    sys.exit(str(error))"
    )
    result = subprocess.run([sys.executable, "-c", program, package], capture_output=True, text=True, check=False)
    return (result.stderr.strip().splitlines() or ["no reason given"])[-1] if result.returncode else None
