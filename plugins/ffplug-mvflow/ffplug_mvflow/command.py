"""``ffplug mvflow``: compressed flow data, and motion vectors of videos."""

from __future__ import annotations

from typing import Any

import click


@click.group("mvflow")
def command() -> None:
    """Make compressed flow data, and take motion vectors out of videos."""


_QUALITY = click.option("--quality", default=23, show_default=True, help="CRF of H.264, quantiser of the others.")
_CODEC = click.option("--codec", default="h264", show_default=True, help="h264, mpeg4, mpeg2 or mpeg1.")
_PRESET = click.option("--preset", default="medium", show_default=True, help="Of x264: how long it searches.")
_GOP = click.option("--gop", default=250, show_default=True, help="Frames from one key frame to the next.")
_B_FRAMES = click.option("--b-frames", default=0, show_default=True, help="B frames between two others.")
_REFERENCES = click.option("--references", default=1, show_default=True, help="Past references to choose from.")


@command.command()
@click.argument("dataset")
@click.option("--root", required=True, type=click.Path(file_okay=False), help="Of the original data set.")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="A folder for each quality is made in it.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Argument of the data set: render=clean.")
@click.option("--quality", "qualities", multiple=True, type=int, help="As below; several make a set each.  [23]")
@click.option("--kind", default="pairs", show_default=True, help="pairs, or clips: whole sequences in order of time.")
@click.option("--workers", default=0, show_default=True, help="Processes that encode; 0 is this one.")
@_CODEC
@_PRESET
@_GOP
@_B_FRAMES
@_REFERENCES
def encode(
    dataset: str,
    root: str,
    out: str,
    settings: tuple[str, ...],
    qualities: tuple[int, ...],
    kind: str,
    workers: int,
    **options: Any,
) -> None:
    """Encode the compressed twin of the flow data set of type DATASET (such as ffplug.SintelDataset).

    True flow is not copied: the twin reads it from the original. An interrupted command goes on where it was.
    """
    import functools
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from ffplug_mvflow.datasets import compress
    from ffplug_mvflow.encoding import Encoding

    source = {"type": dataset, "data_root": root, **dict(map(_setting, settings))}
    encodings = [Encoding(quality=quality, **options) for quality in qualities or (23,)]
    console = Console(stderr=True)
    for encoding in encodings:
        folder = Path(out) / encoding.name
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            told = functools.partial(_tell, bar, bar.add_task(encoding.name))
            meta = compress(source, folder, encoding, kind, workers, told)
        clips = {pair["clip"] for pair in meta["pairs"].values()}
        size = sum((folder / clip).stat().st_size for clip in clips)
        click.echo(f"{folder}: {len(meta['pairs'])} pairs in {len(clips)} clips, {size / 1e6:.1f} MB")


@command.command()
@click.argument("video", type=click.Path(dir_okay=False))
@click.option("--out", required=True, help="An archive (.npz), with fields as the documentation says.")
@click.option("--show", type=click.Path(file_okay=False), help="A folder for pictures of the vectors, too.")
@click.option("--search/--no-search", default=None, help="Look for each cell's reference; found out if not given.")
def extract(video: str, out: str, show: str | None, search: bool | None) -> int:
    """Write the motion vectors of VIDEO on cells of 8×8 pixels."""
    from pathlib import Path

    from ffplug.datasets.formats import write_image
    from ffplug.visualization import flow_to_image
    from ffplug_mvflow.archive import MotionArchive
    from ffplug_mvflow.fields import flow_to_previous, spread
    from ffplug_mvflow.video import MotionVectorVideo

    reader = MotionVectorVideo(video, search="auto" if search is None else search)
    archive = MotionArchive()
    problems = 0
    for coded in reader.coded_frames():
        archive.add(coded)
        if coded.problem is not None:
            click.echo(coded.problem, err=True)
            problems += 1
        elif show is not None and coded.field is not None:
            flow = spread(flow_to_previous(coded.field), coded.height, coded.width)["motion_flow"]
            write_image(Path(show) / f"frame_{coded.position:06d}.png", flow_to_image(flow.transpose(1, 2, 0)))
    archive.write(out)
    kinds = "".join(archive.kinds)
    shares = ", ".join(f"{kinds.count(kind)} {kind}" for kind in "IPB" if kind in kinds)
    click.echo(
        f"{out}: {len(kinds)} frames ({shares}), {archive.coverage():.1%} of the cells of P and B frames have a vector"
    )
    return int(bool(problems))


@command.command()
@click.argument("video", type=click.Path(dir_okay=False))
@click.argument("out", type=click.Path(dir_okay=False))
@_QUALITY
@_PRESET
@_GOP
@_B_FRAMES
@_REFERENCES
def transcode(video: str, out: str, **options: Any) -> None:
    """Encode VIDEO anew as H.264 (OUT, .mp4), with vectors that are good flow: past references only, constant rate."""
    from ffplug.apis.video import VideoFrames
    from ffplug.files import atomic_path
    from ffplug_mvflow.encoding import Encoding, encode_clip

    frames = VideoFrames(video)
    with atomic_path(out) as temporary:
        encode_clip(frames, Encoding(**options), temporary, frames.rate)
    click.echo(f"written: {out}")


def _tell(bar: Any, task: Any, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _setting(text: str) -> tuple[str, Any]:
    import ast

    from ffplug.errors import ConfigError

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(f"--set {text}: expected NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
