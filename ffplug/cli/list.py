"""``ffplug list``: the installed plugins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext


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
    from ffplug.processes import fresh_processes

    processes = fresh_processes()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(packages, pool.map(lambda package: _check_import(package, processes), packages), strict=True))


def _check_import(package: str, processes: BaseContext) -> str | None:
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=_import, args=(package, dict(os.environ), there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        return f"importing it ends the process, with status {process.exitcode}"
    finally:
        process.join()


def _import(package: str, environment: dict[str, str], connection: Connection) -> None:
    """Import a plugin, quietly, and send what went wrong, or None."""
    from ffplug.plugin import discover, load

    os.environ.update(environment)
    with open(os.devnull, "w") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
    try:
        load(next(plugin for plugin in discover() if plugin.package == package))
    except Exception as error:
        connection.send((str(error).strip().splitlines() or [type(error).__name__])[-1])
    else:
        connection.send(None)
