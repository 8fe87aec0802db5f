"""``ffplug infer``: the flow of pictures, folders and videos."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from ffplug.cli.bulk_options import ConsoleReporter, bulk_options, conclude

FORMATS = ("flo", "png", "npy", "pfm", "flo5")


@click.command("infer")
@click.argument("inputs", nargs=-1)
@click.option(
    "--pairs", help="A list of pairs in place of INPUTS: .csv, .tsv or .jsonl with image1, image2 and, if given, name."
)
@click.option("--model", help="Name of a model or recipe, a config file, or a training's work folder.")
@click.option("--checkpoint", help="Weights: of a training, .safetensors, or public ones (file or name).")
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
@click.option("--seed", default=0, show_default=True, help="Of random weights.")
@click.option("--threads", type=int, help="On the CPU; for each worker, and 1 if not given, in a bulk job.")
@click.option("--chunk", default=32, show_default=True, help="Pairs of a bulk job that are done, or redone, together.")
@bulk_options
def command(
    inputs: tuple[str, ...],
    pairs: str | None,
    out: str | None,
    show: str | None,
    video: str | None,
    shard: str | None,
    chunk: int,
    engine: str,
    workers: int,
    ray_address: str | None,
    retries: int,
    fail_fast: bool,
    **options: Any,
) -> int:
    """Estimate the optical flow of INPUTS: two or more pictures, folders of frames, globs or videos.

    Further flows that a model gives (head_flow ...) are written beside the flow, their name behind that of the file.

    What was finished before an error stays on the disk.

    With --pairs, --shard, --workers or --engine ray it is a bulk job: the same command goes on where it stopped,
    several machines do a share each, and what cannot be read is named at the end.
    """
    from ffplug.errors import ConfigError

    if bool(inputs) == bool(pairs):
        raise ConfigError("expected either INPUTS (pictures, folders, globs, videos) or --pairs FILE")
    options["tile"] = parse_tile(options["tile"])
    if not (pairs or shard or workers or engine == "ray" or ray_address):
        return infer_here(inputs, out, show, video, **options)
    if video:
        raise ConfigError("--video needs all frames in order: leave --pairs, --shard, --workers and --engine away")
    run = {"engine": engine, "workers": workers, "ray_address": ray_address, "retries": retries, "fail_fast": fail_fast}
    return infer_in_bulk(inputs, pairs, out, show, chunk, shard, run, **options)


def infer_in_bulk(
    inputs: tuple[str, ...],
    pairs: str | None,
    out: str | None,
    show: str | None,
    chunk: int,
    shard: str | None,
    run: dict[str, Any],
    *,
    suffix: str,
    rate: float | None,
    threads: int | None,
    **options: Any,
) -> int:
    """Do a shard of a bulk job; returns the exit status."""
    from ffplug.apis.bulk_inference import InferWork, ListSource, Output, SequenceSource
    from ffplug.bulk import Shard, run_job
    from ffplug.errors import ConfigError

    share = Shard.parse(shard or "1/1")
    if chunk < 1:
        raise ConfigError(f"--chunk {chunk}: expected 1 or more")
    outputs = []
    for option, folder, ending, picture in (("--out", out, f".{suffix}", False), ("--show", show, ".png", True)):
        if folder and (Path(folder).is_file() or Path(folder).suffix.lower() in (".png", *(f".{s}" for s in FORMATS))):
            raise ConfigError(f"{option} {folder}: a bulk job writes into a folder")
        if folder:
            outputs.append(Output(Path(folder).absolute(), ending, picture))
    # A warm start needs the pair before, so a sequence is one unit then.
    source = ListSource(pairs, chunk) if pairs else SequenceSource(inputs, None if options["warm_start"] else chunk)
    work = InferWork(source, outputs, options.pop("model"), options.pop("checkpoint"), threads=threads or 1, **options)
    start = time.monotonic()
    with ConsoleReporter(work.noun) as reporter:
        report = run_job(work, reporter, share, **run)
    return conclude(report, work, out or show, time.monotonic() - start)


def infer_here(
    inputs: tuple[str, ...],
    out: str | None,
    show: str | None,
    video: str | None,
    *,
    seed: int,
    threads: int | None,
    **options: Any,
) -> int:
    """Go through the inputs in order in this process; returns the exit status, 1 if frames of a video were lost."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ffplug.apis.inferencer import FlowInferencer
    from ffplug.apis.sources import count_pairs, find_sequences
    from ffplug.errors import ConfigError, DamagedFrameError, DataError

    if not (out or show or video):
        raise ConfigError("nothing to write: give --out, --show or --video")
    sequences = find_sequences(inputs[0] if len(inputs) == 1 else list(inputs))
    total = count_pairs(sequences)
    writer = ResultWriter(out, show, video, options.pop("suffix"), options.pop("max_flow"), single=total == 1)
    rate = options.pop("rate") or input_rate(sequences)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    inferencer = FlowInferencer(options.pop("model"), options.pop("checkpoint"), **options)
    columns = (TextColumn("flow"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    problems: list[str] = []

    def lose(name: str, error: DataError) -> None:
        # A damaged frame of a video costs its two pairs; whatever else is wrong ends the run.
        if not isinstance(error, DamagedFrameError):
            raise error
        problems.append(f"{name}: {error}")

    with writer.open(rate), bar as progress:
        task = progress.add_task("flow", total=total)
        for result in inferencer.run(sequences, lose):
            writer.write(result)
            progress.advance(task)
    for line in writer.summary():
        click.echo(line)
    click.echo(time_line(inferencer.seconds))
    for problem in problems:
        click.echo(problem, err=True)
    return int(bool(problems))


def time_line(seconds: Mapping[str, float]) -> str:
    """Say where the time of an inference went."""
    parts = [f"{name} {value:.2f} s" for name, value in seconds.items() if name not in ("frames", "network")]
    detail = f" ({', '.join(parts)})" if parts else ""
    return f"time: network {seconds['network']:.2f} s, reading frames {seconds['frames']:.2f} s{detail}"


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


def input_rate(sequences: Iterable[Any]) -> float:
    """Frames per second of the first video among the sequences, or 10."""
    from ffplug.apis.video import VideoFrames

    videos = (sequence.frames for sequence in sequences if isinstance(sequence.frames, VideoFrames))
    return next((float(video.rate) for video in videos), 10.0)


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
