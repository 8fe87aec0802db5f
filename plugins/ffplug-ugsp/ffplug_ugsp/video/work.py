"""The interpolation of a video as a bulk job: parts that any process does, once, whatever is interrupted."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import torch

from ffplug.apis.inferencer import parse_device, parse_dtype
from ffplug.apis.weights import sha256
from ffplug.bulk import Failure, Reporter, Work, run_job
from ffplug.bulk.job import JobFolder
from ffplug.errors import ConfigError, DataError
from ffplug.version import __version__
from ffplug_ugsp.video.encoding import Encoding, PartWriter
from ffplug_ugsp.video.interpolators import Interpolator, build_interpolator, resolve_model, run
from ffplug_ugsp.video.joining import container_format, join, other_streams
from ffplug_ugsp.video.pictures import Pictures, fresh
from ffplug_ugsp.video.source import SourceVideo
from ffplug_ugsp.video.threads import prefetch
from ffplug_ugsp.video.timeline import Shown, Timeline

PART = 120
"""Frames of the result that are done, or redone, together; also the longest way to a key frame."""
AHEAD = 2
"""Pairs that reading, and frames that the model, may be ahead of what is done with them: more only takes memory."""


class InterpolationWork(Work):
    """A video with more frames.

    Args:
        source: the video.
        target: the file to write; it appears when all is done. What is not done yet lies beside it in a hidden folder.
        timeline: gives which frames the result has; asked last, as looking through a video takes its time.
        interpolator: produces them; or the arguments of
            :func:`~ffplug_ugsp.video.interpolators.build_interpolator`, with which each worker builds its own.
        encoding: how the result is encoded.
        device: such as ``'cuda:0'``; None takes the GPU if there is one.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``.
        threads: of each worker on the CPU.
        seed: of random weights.
        part: frames that are done together.
        ahead: see :class:`Renderer`.

    Attributes:
        left_out: a line for each stream that the result does not have.

    Raises:
        ConfigError: an argument is out of its range, or the encoder cannot take the frames.
        DataError: the target is the source, has no suffix of a video, or cannot hold the sound.
    """

    noun = "frames"

    def __init__(
        self,
        source: SourceVideo,
        target: str | os.PathLike[str],
        timeline: Callable[[], Timeline],
        interpolator: Interpolator | dict[str, Any],
        encoding: Encoding,
        device: str | None = None,
        dtype: str | None = None,
        threads: int = 1,
        seed: int = 0,
        part: int = PART,
        ahead: int = AHEAD,
    ) -> None:
        if threads < 1 or part < 2 or ahead < 0:
            raise ConfigError(
                f"threads={threads}, part={part}, ahead={ahead}: expected at least 1, at least 2, and at least 0"
            )
        self.source, self.interpolator, self.encoding = source, interpolator, encoding
        self.device, self.dtype, self.threads, self.seed, self.part = device, dtype, threads, seed, part
        self.ahead = ahead
        self.target = Path(target).absolute()
        self._input = source.path.absolute()
        if self.target == self._input:
            raise DataError(f"{target}: is the video itself; write to another name")
        parse_dtype(dtype)
        weights = None
        if isinstance(interpolator, dict):
            options = (interpolator.get(name) for name in ("model", "checkpoint", "random_weights"))
            weights = resolve_model(*options)[1]
        self._streams, self.left_out = other_streams(self._input, self.target)
        self._check_container(self._writer(next(iter(source.decoded()))))
        self.job = JobFolder(self.target.with_name(f".{self.target.name}.parts"), "parts", "staging", "whole")
        self.targets = (self.job.path / "parts",)
        self.staging = (self.job.path / "staging",)
        self.timeline = timeline()
        self._finished = False
        self._record = self._make_record(weights)

    def _writer(self, like: av.VideoFrame) -> PartWriter:
        with av.open(str(self._input)) as container:
            aspect = container.streams.video[0].sample_aspect_ratio
        return PartWriter(self.encoding, like, aspect)

    def _check_container(self, writer: PartWriter) -> None:
        codec = av.Codec(writer.encoder, "w").canonical_name
        with av.open(os.devnull, "w", format=container_format(self.target)) as container:
            if codec not in container.supported_codecs:
                raise ConfigError(
                    f"{self.target}: {self.target.suffix} does not hold {codec}; give another --codec, or .mkv"
                )
        self._rotation = writer.like.rotation
        if self._rotation and self.target.suffix.lower() == ".ts":
            raise DataError(f"{self.target}: .ts cannot note a rotation, here by {self._rotation}°; write to .mp4")

    def _make_record(self, weights: Path | None) -> dict[str, Any]:
        state, line = self._input.stat(), self.timeline
        model = self.interpolator
        model = model if isinstance(model, dict) else {"model": type(model).__qualname__}
        record = {
            "ffplug": __version__,
            "input": [str(self._input), state.st_size, state.st_mtime_ns],
            "model": {key: str(value) for key, value in model.items() if value is not None},
            "weights": weights and sha256(weights),
            "seed": self.seed,
            "frames": [len(line), str(line.rate), line.at_cut, int(line.replaced.sum()), int(line.is_cut.sum())],
            "encoding": repr(self.encoding),
            "dtype": self.dtype,
            "threads": self.threads,
            "part": self.part,
        }
        return json.loads(json.dumps(record))

    def record(self) -> dict[str, Any]:  # noqa: D102
        return self._record

    def __len__(self) -> int:
        return -(-len(self.timeline) // self.part)

    def _numbers(self, unit: int) -> range:
        return range(unit * self.part, min((unit + 1) * self.part, len(self.timeline)))

    def name(self, unit: int) -> str:  # noqa: D102
        numbers = self._numbers(unit)
        return f"frames {numbers[0]} to {numbers[-1]} of {self.target.name}"

    def size(self, unit: int) -> int:  # noqa: D102
        return len(self._numbers(unit))

    def prepare(self, slot: int) -> Callable[[int, Sequence[Path]], list[Failure]]:  # noqa: D102
        torch.manual_seed(self.seed)
        device = self.device
        if device in (None, "cuda") and torch.cuda.is_available():
            device = f"cuda:{slot % torch.cuda.device_count()}"
        place = parse_device(device)
        if place.type == "cpu":
            torch.set_num_threads(self.threads)
        cv2.setNumThreads(self.threads)
        interpolator = self.interpolator
        if isinstance(interpolator, dict):
            interpolator = build_interpolator(**interpolator, device=place)
        render = Renderer(self.source, self.timeline, interpolator, place, parse_dtype(self.dtype), self.ahead)
        writer = self._writer(render.like)

        def produce(unit: int, folders: Sequence[Path]) -> list[Failure]:
            with contextlib.closing(render(self._numbers(unit))) as frames:
                writer.write(folders[0] / f"{unit:06d}.mkv", frames, self.timeline.rate)
            return []

        return produce

    def is_complete(self) -> bool:
        """Whether this process has put the result in its place; a file that was there before is not known to be it."""
        return self._finished

    def complete(self) -> None:
        """Join the parts, and put the result in its place."""
        parts = [self.targets[0] / f"{unit:06d}.mkv" for unit in range(len(self))]
        whole = self.job.path / "whole" / self.target.name
        line = self.timeline
        join(parts, self._input, whole, self._streams, line.time, line.time_base, self._rotation)
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, self.target)
        self._finished = True


class Renderer:
    """Makes frames of the result: one thread decodes, one runs the model, and the caller encodes meanwhile.

    Args:
        source: the video.
        timeline: what they are made from.
        interpolator: produces those that are not in the video.
        device: where it runs.
        dtype: its precision.
        ahead: how many pairs, and how many produced frames, may wait for what comes next; 0 does all in one thread.
    """

    def __init__(
        self,
        source: SourceVideo,
        timeline: Timeline,
        interpolator: Interpolator,
        device: torch.device,
        dtype: torch.dtype,
        ahead: int = AHEAD,
    ) -> None:
        self.timeline, self.interpolator, self.device, self.dtype = timeline, interpolator, device, dtype
        self.ahead = ahead
        self._reader = source.reader(timeline.scan)
        self.like = self._reader.read(0, 0)[0]
        self._pictures = Pictures(self.like)
        self._tensors: OrderedDict[int, torch.Tensor] = OrderedDict()

    def __call__(self, numbers: range) -> Generator[av.VideoFrame]:
        """Yield frames of the result; those of the video itself as they were decoded."""
        with contextlib.closing(prefetch(self._produced(numbers), self.ahead)) as produced:
            for picture in produced:
                yield self._pictures.frame(picture) if isinstance(picture, torch.Tensor) else fresh(picture)

    def _produced(self, numbers: range) -> Generator[av.VideoFrame | torch.Tensor]:
        """Run the model: yield frames of the video, and new pictures 1×3×H×W."""
        with contextlib.closing(prefetch(self._given(numbers), self.ahead)) as given:
            for shown, frames in given:
                if shown[0].first == shown[0].second:
                    yield from itertools.repeat(frames[0], len(shown))
                    continue
                times = [one.time for one in shown]
                if shown[0].mixed:
                    yield from (torch.lerp(*frames, float(time)) for time in times)
                else:
                    yield from run(self.interpolator, *frames, times, self.dtype)

    def _given(self, numbers: range) -> Generator[tuple[list[Shown], Sequence[av.VideoFrame | torch.Tensor]]]:
        """Decode: yield what successive frames are made from, with the frame of the video or the two tensors."""
        for (first, second, _), group in itertools.groupby(map(self.timeline.shown, numbers), key=_pair):
            frames = self._reader.read(first, second)
            if first != second:
                frames = [self._tensor(number, frame) for number, frame in zip((first, second), frames, strict=True)]
            yield list(group), frames

    def _tensor(self, number: int, frame: av.VideoFrame) -> torch.Tensor:
        """A frame as a tensor; that of the pair before is still there."""
        if number not in self._tensors:
            self._tensors[number] = self._pictures.tensor(frame).to(self.device)
            if len(self._tensors) > 2:
                self._tensors.popitem(last=False)
        return self._tensors[number]


def _pair(shown: Shown) -> tuple[int, int, bool]:
    return shown.first, shown.second, shown.mixed


class Silent(Reporter):
    """Tells nobody."""

    def start(self, total: int, done: int) -> None:
        """See the base class."""

    def advance(self, count: int) -> None:
        """See the base class."""

    def fail(self, failure: Failure) -> None:
        """See the base class."""

    def note(self, text: str) -> None:
        """See the base class."""


def interpolate_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    factor: int | None = None,
    rate: Fraction | None = None,
    *,
    model: str | os.PathLike[str] | Interpolator | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    encoding: Encoding | None = None,
    timing: dict[str, Any] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int = 1,
    part: int = PART,
    ahead: int = AHEAD,
    **options: Any,
) -> Timeline:
    """Write a video with more frames.

    Sound, subtitles, chapters and metadata are copied. What was done before an interruption is not done again by the
    same call.

    Args:
        source: the video.
        target: the file to write, whose suffix decides the container; it appears when all is done.
        factor: how many frames come in the place of one.
        rate: frames per second, in place of ``factor``.
        model: ``'blend'``, ``'dis'``, a name, a config file, a training's work folder, or an
            :class:`~ffplug_ugsp.video.interpolators.Interpolator`.
        checkpoint: weights of a model.
        encoding: how the result is encoded.
        timing: further arguments of :class:`~ffplug_ugsp.video.timeline.Timeline`.
        device: such as ``'cuda:0'``; None takes the GPU if there is one.
        dtype: precision of the model.
        threads: on the CPU.
        part: frames that are done, or redone, together.
        ahead: pairs that are decoded, and frames that are produced, ahead of the encoder; 0 does all in one thread.
        **options: further arguments of :func:`~ffplug_ugsp.video.interpolators.build_interpolator`.

    Returns:
        What the result is made of.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: the video cannot be read, or the result not be written.
    """
    video = SourceVideo(source)
    what = model if isinstance(model, Interpolator) else dict(model=model, checkpoint=checkpoint, **options)

    def plan() -> Timeline:
        return Timeline(video.scan(), factor, rate, **(timing or {}))

    work = InterpolationWork(
        video, target, plan, what, encoding or Encoding(), device, dtype, threads, part=part, ahead=ahead
    )
    report = run_job(work, Silent(), fail_fast=True)
    if report.failures:
        raise DataError(str(report.failures[0]))
    return work.timeline
