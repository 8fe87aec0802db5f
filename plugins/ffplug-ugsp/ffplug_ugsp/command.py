"""``ffplug interpolate``: a video with more frames."""

from __future__ import annotations

from typing import Any

import click

from ffplug.cli.bulk_options import ConsoleReporter, conclude


@click.command("interpolate")
@click.argument("source", metavar="VIDEO", type=click.Path(dir_okay=False))
@click.argument("target", metavar="[OUT]", required=False, type=click.Path(dir_okay=False))
@click.option("--x", "factor", type=int, help="Frames in the place of one: 2, 4, 8 ...")
@click.option("--fps", metavar="RATE", help="Frames per second of the result, as 60, 59.94 or 60000/1001.")
@click.option("--model", help="blend, dis, or a model's or recipe's name, a config file, or a training's work folder.")
@click.option("--checkpoint", help="Weights: of a training, .safetensors, or public ones (file or name).")
@click.option(
    "--from", "converter", help="Which public implementation wrote the checkpoint; found by itself if not given."
)
@click.option("--at-cut", default="nearest", show_default=True, help="Between two scenes: nearest, hold or blend.")
@click.option(
    "--cut", default=0.07, show_default=True, help="Change of the picture, 0 to 1, above which a scene begins."
)
@click.option("--cuts", type=click.Path(dir_okay=False), help="A list of the first frames of scenes (counted from 0).")
@click.option("--keep-duplicates", is_flag=True, help="Leave repeated frames as they are; else they are replaced.")
@click.option("--tile", metavar="HxW", help="Work in tiles, as 544x960, where frames of 4K would not fit.")
@click.option("--overlap", default=128, show_default=True, help="Pixels that tiles share; more than the motion.")
@click.option("--flow-scale", default=1.0, show_default=True, help="Find the flow in smaller frames: 0.5 for 4K.")
@click.option("--iterations", type=int, help="Of a recurrent model of optical flow.")
@click.option("--codec", help="Encoder of FFmpeg; H.264, or H.265 for more than 8 bits, if not given.")
@click.option("--quality", type=int, help="Constant quality of the encoder, lower is better.  [18]")
@click.option("--preset", help="Of x264 and x265: how long they try.")
@click.option("--encoder-option", "encoder_options", multiple=True, metavar="NAME=VALUE", help="Of the encoder.")
@click.option("--device", help="cpu, cuda, cuda:1 ...; the GPU if there is one.")
@click.option("--dtype", help="float32, float16 or bfloat16.")
@click.option("--threads", type=int, default=1, show_default=True, help="On the CPU, for each worker.")
@click.option("--random-weights", is_flag=True, help="Run a model without weights; the result means nothing.")
@click.option("--seed", default=0, show_default=True, help="Of random weights.")
@click.option("--part", default=120, show_default=True, help="Frames of the result that are done, or redone, together.")
@click.option("--restart", is_flag=True, help="Drop what an unfinished run with other settings has done.")
@click.option("--dry-run", is_flag=True, help="Say what is found in VIDEO, and write nothing.")
@click.option("--workers", type=int, default=0, help="Processes that share the work; 0 does it in this one.")
@click.option("--shard", metavar="I/N", help="Do the I-th of N shares, as 1/2 on the first of two machines.")
def command(
    source: str,
    target: str | None,
    factor: int | None,
    fps: str | None,
    model: str | None,
    checkpoint: str | None,
    converter: str | None,
    at_cut: str,
    cut: float,
    cuts: str | None,
    keep_duplicates: bool,
    tile: str | None,
    overlap: int,
    flow_scale: float,
    iterations: int | None,
    codec: str | None,
    quality: int | None,
    preset: str | None,
    encoder_options: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    threads: int,
    random_weights: bool,
    seed: int,
    part: int,
    restart: bool,
    dry_run: bool,
    workers: int,
    shard: str | None,
) -> int:
    """Interpolate frames of VIDEO into OUT (.mp4, .mov, .mkv ...), with its sound and all else that it holds.

    OUT appears when all is done. The same command goes on where it was interrupted.
    """
    import time

    from ffplug.bulk import Shard, run_job
    from ffplug.cli.infer import parse_tile
    from ffplug.errors import ConfigError
    from ffplug_ugsp.video.encoding import Encoding
    from ffplug_ugsp.video.source import SourceVideo, exact
    from ffplug_ugsp.video.timeline import Timeline
    from ffplug_ugsp.video.work import InterpolationWork

    if (factor is None) == (fps is None):
        raise ConfigError("expected either --x 2 (or 4, 8 ...) or --fps 60")
    begun = time.monotonic()
    rate = None if fps is None else exact(fps)
    video = SourceVideo(source)
    first_frames = None if cuts is None else _numbers(cuts)

    def plan() -> Timeline:
        timing = dict(duplicates=not keep_duplicates, cut=cut, cuts=first_frames, at_cut=at_cut)
        timeline = Timeline(_scan(video), factor, rate, **timing)
        click.echo(_found(source, timeline))
        return timeline

    if dry_run:
        timeline = plan()
        click.echo("cuts before frames: " + (", ".join(map(str, timeline.is_cut.nonzero()[0])) or "none"))
        click.echo("replaced frames: " + (", ".join(map(str, timeline.replaced.nonzero()[0])) or "none"))
        return 0
    if target is None:
        raise ConfigError("expected the name of the file to write: ffplug interpolate VIDEO OUT")
    built = dict(
        model=model,
        checkpoint=checkpoint,
        source=converter,
        random_weights=random_weights,
        tile=None if tile in (None, "none") else _sides(parse_tile(tile)),
        overlap=overlap,
        iterations=iterations,
        flow_scale=flow_scale,
    )
    encoding = Encoding(codec, quality, preset, dict(map(_setting, encoder_options)))
    work = InterpolationWork(video, target, plan, built, encoding, device, dtype, threads, seed, part)
    for line in work.left_out:
        click.echo(line, err=True)
    with ConsoleReporter(work.noun) as reporter:
        report = run_job(work, reporter, Shard.parse(shard or "1/1"), workers=workers, fail_fast=True, replace=restart)
    return conclude(report, work, target, time.monotonic() - begun)


def _scan(video: Any) -> Any:
    """Look through the video, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("looking through"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("frames", total=video.count)
        return video.scan(lambda: bar.advance(task))


def _found(source: str, timeline: Any) -> str:
    scan = timeline.scan
    cuts, replaced = int(timeline.is_cut.sum()), int(timeline.replaced.sum())
    return (
        f"{source}: {len(scan)} frames at {_rate(scan.rate)} per second, {cuts} cuts, {replaced} duplicates replaced "
        f"-> {len(timeline)} frames at {_rate(timeline.rate)}"
    )


def _rate(rate: Any) -> str:
    return str(rate) if rate.denominator == 1 else f"{float(rate):.3f} ({rate})"


def _sides(tile: Any) -> tuple[int, int]:
    from ffplug.errors import ConfigError

    if isinstance(tile, str):
        raise ConfigError(f"--tile {tile}: expected HEIGHTxWIDTH such as 544x960, or none")
    return tile


def _numbers(path: str) -> list[int]:
    """The whole numbers in a file, one a line."""
    from pathlib import Path

    from ffplug.errors import DataError

    try:
        lines = Path(path).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of cuts cannot be read ({error})") from None
    wrong = [line for line in lines if not line.isdecimal()]
    if wrong:
        raise DataError(f"{path}: expected the number of a frame in each line, found {wrong[0]!r}")
    return [int(line) for line in lines]


def _setting(text: str) -> tuple[str, str]:
    from ffplug.errors import ConfigError

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--encoder-option {text}: expected NAME=VALUE")
    return name, value
