"""``ffplug synth``: write procedural scenes with exact flow in the layout of a data set."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import click

from ffplug.cli.bulk_options import ConsoleReporter, bulk_options, conclude
from ffplug.errors import did_you_mean

ALIASES = {"kitti": "kitti2015"}


class LayoutName(click.ParamType):
    """The name of a layout of the core or an installed plugin; only manifests are read."""

    name = "LAYOUT"

    def names(self) -> list[str]:
        """All names and aliases."""
        from ffplug.plugin import component_owners

        return [*component_owners("layouts"), *ALIASES]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, for the usage line."""
        return f"{{{'|'.join(self.names())}}}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name."""
        if value not in self.names():
            self.fail(f"{value!r}: expected one of {', '.join(self.names())}{did_you_mean(value, self.names())}", param)
        return ALIASES.get(value, value)


class Size(click.ParamType):
    """Height and width as ``128x160``."""

    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)[x×](\d+)", value)
        if not match:
            self.fail(f"{value!r} is not HEIGHTxWIDTH, such as 128x160", param, ctx)
        return int(match[1]), int(match[2])


def _option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE, such as fog=0.2 or layers=[2,4]", param_hint="--set")
    try:
        return name, json.loads(value)
    except ValueError:
        raise click.BadParameter(f"{text!r}: {value!r} is not a number or [a,b]", param_hint="--set") from None


@click.command("synth", short_help="Write procedural data with exact flow in the layout of a data set.")
@click.argument("layout", type=LayoutName())
@click.option("--root", required=True, type=click.Path(file_okay=False), help="Folder to make.")
@click.option("--scenes", default=6, show_default=True, help="Training scenes (pairs, for chairs and kitti).")
@click.option("--frames", default=10, show_default=True, help="Frames per scene.")
@click.option("--size", type=Size(), default="128x160", show_default=True, help="Size of the frames.")
@click.option("--seed", default=0, show_default=True, help="Seed of the set.")
@click.option("--difficulty", default="standard", show_default=True, help="'demo', 'standard' or 'hard'.")
@click.option(
    "--textures",
    default="mixed",
    show_default=True,
    help="'analytic', 'pictures' (those that scikit-image and scikit-learn ship), 'mixed', or a folder of pictures.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change what scenes are drawn from, as fog=0.2."
)
@click.option("--overwrite", is_flag=True, help="Replace another procedural set at ROOT (never anything else).")
@bulk_options
def command(
    layout: str,
    root: str,
    scenes: int,
    frames: int,
    size: tuple[int, int],
    seed: int,
    difficulty: str,
    textures: str,
    changes: tuple[str, ...],
    overwrite: bool,
    shard: str | None,
    **engine: Any,
) -> int:
    """Write random textured shapes in motion, with exact flow and occlusion, in the LAYOUT of a data set.

    The set appears at ROOT when it is complete, marked by PROCEDURAL.json; an interrupted run leaves nothing there, and
    the same command goes on with it. With --shard each of several machines writes its share into a folder that they all
    see.
    """
    from ffplug.bulk import Shard, run_job
    from ffplug.datasets.procedural import Recipe
    from ffplug.datasets.procedural.writers import SynthWork

    options = dict(map(_option, changes))
    recipe = Recipe(layout, scenes, frames, size, seed, difficulty, textures, options)
    work = SynthWork(recipe, root, overwrite)
    start = time.monotonic()
    with ConsoleReporter(work.noun) as reporter:
        report = run_job(work, reporter, Shard.parse(shard or "1/1"), replace=overwrite, **engine)
    return conclude(report, work, root, time.monotonic() - start)
