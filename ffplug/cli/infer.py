"""``ffplug infer``: the flow of pictures, folders and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FORMATS = ("flo", "png", "npy", "pfm", "flo5")


@click.command("infer")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--model", help="Name of a model or recipe, a config file, or a training's work folder.")
@click.option("--checkpoint", help="Weights: of a training, .safetensors, or public ones, converted while loading.")
@click.option(
    "--from", "source", help="Which public implementation wrote the checkpoint; found by itself if not given."
)
@click.option("--out", help="A flow file (.flo, .png of KITTI, .npy, .pfm, .flo5) for one pair, else a folder.")
@click.option("--format", "suffix", type=click.Choice(FORMATS), default="flo", help="Of flow files in a folder.")
@click.option("--show", help="A picture of the flow (.png) for one pair, else a folder of pictures.")
@click.option("--video", help="Write a video of the frames and their flow.")
@click.option("--rate", type=float, help="Frames per second of it; that of the input video, or 10.")
@click.option("--iterations", type=int, help="Iterations of a recurrent model.")
@click.option(
    "--tile", metavar="HxW|auto|none", help="Work in tiles, as 432x960; auto where whole frames would not fit."
)
@click.option("--warm-start", is_flag=True, help="Start each pair from the flow of the one before.")
@click.option("--batch-size", type=int, default=1, show_default=True, help="Pairs that run together.")
@click.option(
    "--max-flow", type=float, help="Length in pixels that gets full colour; the longest of each pair if not given."
)
@click.option("--device", help="cpu, cuda, cuda:1 ...; the GPU if there is one.")
@click.option("--dtype", help="float32, float16 or bfloat16.")
@click.option("--compile", is_flag=True, help="Compile the network for each size of frames (minutes at first).")
@click.option("--random-weights", is_flag=True, help="Run a model without weights; the result means nothing.")
def command(inputs: tuple[str, ...], out: str | None, show: str | None, video: str | None, **options: Any) -> None:
    """Estimate the optical flow of INPUTS: two or more pictures, folders of frames, globs or videos.

    What was finished before an error stays on the disk.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ffplug.apis.inferencer import FlowInferencer
    from ffplug.apis.sources import count_pairs, find_sequences
    from ffplug.errors import ConfigError

    if not (out or show or video):
        raise ConfigError("nothing to write: give --out, --show or --video")
    sequences = find_sequences(inputs[0] if len(inputs) == 1 else list(inputs))
    total = count_pairs(sequences)
    writer = ResultWriter(out, show, video, options.pop("suffix"), options.pop("max_flow"), single=total == 1)
    rate = options.pop("rate") or input_rate(inputs)
    inferencer = FlowInferencer(
        options.pop("model"), options.pop("checkpoint"), tile=parse_tile(options.pop("tile")), **options
    )
    columns = (TextColumn("flow"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with writer.open(rate), bar as progress:
        task = progress.add_task("flow", total=total)
        for result in inferencer(sequences):
            writer.write(result)
            progress.advance(task)
    for line in writer.summary():
        click.echo(line)


def parse_tile(text: str | None) -> tuple[int, int] | str | None:
    """``432x960`` to (432, 960); ``auto``, ``none`` and nothing stay as they are.

    Raises:
        ConfigError: anything else.
    """
    from ffplug.errors import ConfigError

    if text in (None, "auto", "none"):
        return text
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ConfigError(f"--tile {text}: expected HEIGHTxWIDTH such as 432x960, auto or none")
    return int(sides[0]), int(sides[1])


def input_rate(inputs: tuple[str, ...]) -> float:
    """Frames per second of the first video among the inputs, or 10."""
    from ffplug.apis.video import VIDEO_SUFFIXES, VideoFrames

    for item in inputs:
        if Path(item).suffix.lower() in VIDEO_SUFFIXES:
            return float(VideoFrames(item).rate)
    return 10.0


class ResultWriter:
    """Writes each result as it comes: flow files, pictures, a video."""

    def __init__(
        self, out: str | None, show: str | None, video: str | None, suffix: str, max_flow: float | None, single: bool
    ) -> None:
        from ffplug.datasets.formats import FLOW_SUFFIXES, IMAGE_SUFFIXES
        from ffplug.errors import ConfigError

        self.out, self.show, self.video = (Path(path) if path else None for path in (out, show, video))
        self.suffix = suffix
        self.max_flow = max_flow
        self.single = single
        self.count = 0
        self.pixels: tuple[int, int] | None = None
        self.mean = 0.0
        self._film: Any = None
        for option, path, suffixes in (("--out", self.out, FLOW_SUFFIXES), ("--show", self.show, IMAGE_SUFFIXES)):
            if path is None:
                continue
            is_file = path.suffix.lower() in suffixes
            if single and not is_file and path.suffix and not path.is_dir():
                raise ConfigError(f"{option} {path}: unknown suffix; expected one of {', '.join(sorted(suffixes))}")
            if not single and is_file:
                raise ConfigError(f"{option} {path}: the inputs hold more than one pair, so it must be a folder")

    def open(self, rate: float) -> Any:
        """Return the context in which results are written; a video is finished at its end, however it ends."""
        from contextlib import nullcontext
        from fractions import Fraction

        from ffplug.apis.video import VideoWriter

        if self.video is None:
            return nullcontext()
        self._film = VideoWriter(self.video, Fraction(rate).limit_denominator(1000))
        return self._film

    def _path(self, target: Path, name: str, suffix: str) -> Path:
        path = target if self.single and target.suffix and not target.is_dir() else target / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, result: Any) -> None:
        """Write one result."""
        import numpy as np

        if self.out is not None:
            result.write(self._path(self.out, result.name, f".{self.suffix}"))
        if self.show is not None:
            result.show(self._path(self.show, result.name, ".png"), self.max_flow)
        if self._film is not None:
            self._film.write(result.side_by_side(self.max_flow))
        self.count += 1
        self.mean += float(np.linalg.norm(result.flow, axis=2).mean())
        self.pixels = result.flow.shape[:2]

    def summary(self) -> list[str]:
        """Lines that say what was written."""
        if not self.count:
            return ["no pair"]
        size = f"{self.pixels[0]}×{self.pixels[1]}"
        lines = [f"{self.count} pair(s) of {size} pixels, mean flow {self.mean / self.count:.2f} px"]
        return lines + [f"written: {path}" for path in (self.out, self.show, self.video) if path is not None]
