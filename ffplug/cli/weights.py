"""``ffplug weights``: what weights are released, which are here, and getting them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ffplug.apis.weights import Progress, Weights


@click.group("weights")
def command() -> None:
    """List, pull, verify and mirror released weights.

    Weights lie in the folder FFPLUG_WEIGHTS (`weights` if it is not set). Only `pull` and `mirror` download, from
    FFPLUG_MIRROR (a folder or an address) first where it is set.
    """


@command.command("list")
@click.argument("pattern", default="*")
def list_command(pattern: str) -> None:
    """List the weights whose name or model fits PATTERN ('*sam*'), and whether they are on this machine."""
    from ffplug.apis.weights import known_weights, weights_folder

    known = list(known_weights().values())
    wanted = pattern.replace("-", "_")
    chosen = [item for item in known if any(fnmatch.fnmatch(name, wanted) for name in (item.name, *item.models))]
    click.echo(f"weights in {weights_folder()}:")
    for item in chosen:
        click.echo(describe(item))


@command.command("pull")
@click.argument("names", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Replace files that are there.")
def pull_command(names: Sequence[str], force: bool) -> None:
    """Download the weights NAMES, check size and SHA-256, and put them into the folder of weights.

    A broken download goes on where it broke, at once or at the next call.
    """
    from ffplug.apis.weights import find_weights, pull

    chosen = [find_weights(name) for name in names]
    with _progress() as progress:
        for item in chosen:
            path = pull(item, force=force, progress=progress(item))
            click.echo(f"{path}: {item.name}, {path.stat().st_size:,} bytes, licence {item.licence} ({item.origin})")


@command.command("verify")
@click.argument("names", nargs=-1)
def verify_command(names: Sequence[str]) -> int:
    """Check size and SHA-256 of the weights NAMES, or of all that are on this machine.

    The exit status is 2 if a file is wrong or one of NAMES is not there.
    """
    from ffplug.apis.weights import find_weights, known_weights, weights_folder

    chosen = [find_weights(name) for name in names] or [w for w in known_weights().values() if w.path.is_file()]
    if not chosen:
        click.echo(f"no released weights in {weights_folder()}")
    wrong = False
    for item in chosen:
        problem = item.problem(item.path) if item.path.is_file() else "is not on this machine"
        wrong = wrong or problem is not None
        good = "right" if item.sha256 else "there; no checksum of it is known"
        click.echo(f"{item.path}: {item.name} {problem or f'is {good}'}")
    return 2 if wrong else 0


@command.command("mirror")
@click.argument("folder", type=click.Path(file_okay=False))
@click.argument("names", nargs=-1)
def mirror_command(folder: str, names: Sequence[str]) -> int:
    """Copy or pull the weights NAMES, or all that can be got, into FOLDER with an index of sizes and checksums.

    Set FFPLUG_MIRROR to FOLDER, or to the address at which a server of files shows it, and `ffplug weights pull`
    takes weights from there. The exit status is 2 if one of NAMES could not be got.
    """
    from ffplug.apis.weights import find_weights, known_weights, mirror

    chosen = [find_weights(name) for name in names] or list(known_weights().values())
    with _progress() as progress:
        failures = mirror(chosen, folder, progress)
    for reason in failures.values():
        click.echo(f"left out: {reason}", err=True)
    click.echo(f"{folder}: {len(chosen) - len(failures)} of {len(chosen)} weights")
    return 2 if names and failures else 0


def describe(item: Weights) -> str:
    """Two lines on weights: whether they are here or how to get them, and what they are."""
    if item.path.is_file():
        state = "here"
    elif item.urls:
        state = f"not here: ffplug weights pull {item.name}"
    else:
        state = f"not here: get by hand, put it at {item.path}"
    size = f"{item.size / 2**20:,.1f} MiB" if item.size else "size unknown"
    models = f"for {', '.join(item.models)}" if item.models else "a part of a network"
    return f"  {item.name}  [{state}]\n    {item.file}, {size}, {models}, licence {item.licence}; {item.origin}"


@contextmanager
def _progress() -> Iterator[Callable[[Weights], Progress]]:
    """A bar for each weights, on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:

        def start(item: Weights) -> Progress:
            task = bars.add_task(item.name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield start
