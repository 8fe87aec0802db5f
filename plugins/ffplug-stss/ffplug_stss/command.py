"""``ffplug stss``: looking at what a network makes of a clip, and data from an engine."""

from __future__ import annotations

import click


@click.group("stss")
def command() -> None:
    """Space-time supersampling: look at clips, and make data of what an engine wrote."""


@command.command("import")
@click.argument("low", type=click.Path(file_okay=False))
@click.argument("high", type=click.Path(file_okay=False))
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--sequence", default="train1", show_default=True, help="Its name; one that begins with train trains.")
@click.option("--far", type=float, required=True, help="Distance that becomes depth 1, as SceneDepth counts.")
@click.option("--exposure", default=1.0, show_default=True, help="Factor of the linear colours.")
@click.option("--compose", "rule", default="exact", show_default=True, help="How vectors join: exact or published.")
def import_(low: str, high: str, out: str, sequence: str, far: float, exposure: float, rule: str) -> None:
    """Make a sequence of the released layout in OUT from EXR files of an engine.

    LOW holds the buffers of each frame, HIGH the true frames at twice the size.
    """
    from ffplug_stss.capture import Capture, import_capture

    count = import_capture(Capture(low, high, far, exposure, rule), out, sequence)
    click.echo(f"{out}: {count} frames of {sequence}")


@command.command()
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--model", default="stss", show_default=True, help="A name or a config file.")
@click.option("--checkpoint", help="Weights: a file, or a name of released ones; without, they are random.")
@click.option("--data", type=click.Path(file_okay=False), help="A set in the released layout; without, a drawn scene.")
@click.option("--split", default="test", show_default=True, help="Of --data: train or test.")
@click.option("--sequence", help="Of --data, as SCENE/SEQUENCE; the first one if not given.")
@click.option("--seed", default=0, show_default=True, help="Of the drawn scene.")
@click.option("--size", default="136x240", show_default=True, metavar="HxW", help="Of the drawn scene's inputs.")
@click.option("--frames", default=24, show_default=True, help="How many.")
@click.option("--fps", default=10.0, show_default=True, help="Of the video.")
@click.option("--outside", default="black", show_default=True, help="What the network gets outside: black or repeat.")
def view(
    out: str,
    model: str,
    checkpoint: str | None,
    data: str | None,
    split: str,
    sequence: str | None,
    seed: int,
    size: str,
    frames: int,
    fps: float,
    outside: str,
) -> None:
    """Film bilinear, the network and the reference side by side, with errors and holes, to OUT (.mp4).

    Beside it come a table (.csv) and a plot (.png) of the figures over time.
    """
    import ffplug
    from ffplug.cli.benchmark import parse_size
    from ffplug.errors import ConfigError, DataError
    from ffplug_stss.datasets import RenderedDataset, STSSDataset
    from ffplug_stss.viewing import produce, write_view

    if frames < 1 or not 1 <= fps <= 240:
        raise ConfigError(f"--frames {frames}, --fps {fps:g}: expected at least 1, and 1 to 240")
    steps = [dict(type="ffplug_stss.LoadRecord")]
    if data is None:
        clip = RenderedDataset(1, frames, parse_size(size), seed, pipeline=steps)
    else:
        clip = STSSDataset(data, split, pipeline=steps)
    names = [clip.get_data_info(place)["sequence"] for place in range(len(clip))]
    wanted = sequence or next(iter(names), None)
    if wanted not in names:
        raise DataError(f"{data}: no sequence {sequence!r}; there are {', '.join(sorted(set(names))) or 'none'}")
    places = [place for place, name in enumerate(names) if name == wanted]
    places = sorted(places, key=lambda place: clip.get_data_info(place)["frame"])[:frames]
    built = ffplug.build_model(model, checkpoint)
    rows = write_view(produce(built, (clip[place] for place in places), outside), out, fps)
    means = {name: sum(row[f"psnr_{name}"] for row in rows) / len(rows) for name in ("stss", "bilinear")}
    click.echo(f"{out}: {len(rows)} frames, PSNR {means['stss']:.2f} dB, bilinear {means['bilinear']:.2f} dB")
