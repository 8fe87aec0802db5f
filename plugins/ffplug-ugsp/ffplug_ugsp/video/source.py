"""The video to interpolate: what its streams say of themselves, and its frames by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideData

from ffplug.apis.video import VideoFrames
from ffplug.errors import DataError
from ffplug_ugsp.video.scan import Scan, Scanner

THUMBNAIL = 160
"""Width of the small pictures by which cuts and duplicates are found."""
FORWARD = 64
"""Frames that are rather decoded than leapt over."""
DYNAMIC_HDR = (SideData.DOVI_RPU_BUFFER, SideData.DOVI_METADATA, SideData.DYNAMIC_HDR_PLUS, SideData.DYNAMIC_HDR_VIVID)


class SourceVideo(VideoFrames):
    """A video whose frames are to be interpolated.

    Args:
        path: a video file that FFmpeg can read.

    Raises:
        DataError: the file is missing, no video, or damaged from the start on.
    """

    def scan(self, advance: Callable[[], None] = lambda: None) -> Scan:
        """Decode the video once: note the frames' times, and find cuts and duplicates.

        Args:
            advance: called after each frame.

        Raises:
            DataError: the video is damaged, cut off, interlaced, changes its size, has Dolby Vision or other metadata
                that belong to single frames, or times that do not grow.
        """
        with self._open() as container:
            time_base = container.streams.video[0].time_base
        period = 1 / (self.rate * time_base)
        scanner = Scanner()
        times: list[int] = []
        first = step = None
        untimed = False
        for number, frame in enumerate(self.decoded()):
            first = frame if first is None else first
            self._check(number, frame, first)
            untimed |= frame.pts is None  # as in bare streams
            time = round(number * period) if frame.pts is None else frame.pts
            if times and time <= times[-1]:
                raise DataError(
                    f"{self.path}: frame {number} is shown at {float(time * time_base):.3f} s, not after the one "
                    f"before; mend the times first, as by ffmpeg -fflags +genpts -i {self.path.name} -c copy FIXED.mkv"
                )
            times.append(time)
            step = frame.duration
            scanner.add(_thumbnail(frame))
            advance()
        last = step or (times[-1] - times[-2] if len(times) > 1 else max(1, round(period)))
        return Scan(
            np.array([*times, times[-1] + last], np.int64),
            time_base,
            self.rate,
            np.array(scanner.change, np.float32),
            np.array(scanner.duplicate, bool),
            untimed,
        )

    def _check(self, number: int, frame: av.VideoFrame, first: av.VideoFrame) -> None:
        """Refuse what would come out wrong."""
        if frame.interlaced_frame:
            raise DataError(
                f"{self.path}: frame {number} is interlaced: two instants in one picture; make whole frames first: "
                f"ffmpeg -i {self.path.name} -vf bwdif -c:a copy PROGRESSIVE{self.path.suffix}"
            )
        if (frame.width, frame.height) != (first.width, first.height) or frame.format.name != first.format.name:
            raise DataError(
                f"{self.path}: frame {number} is {frame.width}×{frame.height} {frame.format.name}, the first one "
                f"{first.width}×{first.height} {first.format.name}; cut the video where it changes"
            )
        dynamic = [kind.name for kind in DYNAMIC_HDR if frame.side_data.get(kind) is not None]
        if dynamic:
            raise DataError(
                f"{self.path}: frame {number} carries {', '.join(dynamic)}, which describe that frame alone and cannot "
                "be interpolated; take them out of the stream first (dovi_tool remove, hdr10plus_tool remove)"
            )

    def reader(self, scan: Scan) -> FrameReader:
        """Return what gets frames by their number."""
        return FrameReader(self, scan)

    def decoded_from(self, time: int) -> Iterator[av.VideoFrame]:
        """Yield the frames from the key frame at or before a time (in the stream's time base) on."""
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            container.seek(time, stream=stream)
            try:
                yield from container.decode(stream)
            except av.FFmpegError as error:
                raise DataError(f"{self.path}: cannot be decoded further ({error.strerror})") from error


class FrameReader:
    """Frames of a scanned video by number, in growing order or nearly so; a few are in memory at a time.

    Args:
        video: the video.
        scan: what was found in it.
    """

    def __init__(self, video: SourceVideo, scan: Scan) -> None:
        self.video, self.scan = video, scan
        self._frames: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._next: int | None = None
        self._window: dict[int, av.VideoFrame] = {}

    def read(self, first: int, last: int) -> tuple[av.VideoFrame, av.VideoFrame]:
        """Return two frames; those before ``first`` are forgotten."""
        self._window = {number: frame for number, frame in self._window.items() if number >= first}
        if first not in self._window and (self._next is None or not 0 <= first - self._next < FORWARD):
            self._start(first)
        while last not in self._window:
            number, frame = next(self._frames, (None, None))
            if number is None:
                raise DataError(f"{self.video.path}: ends before frame {last}: has the file changed meanwhile?")
            self._next = number + 1
            if number >= first:
                self._window[number] = frame
        return self._window[first], self._window[last]

    def _start(self, first: int) -> None:
        """Go on at the key frame before a frame; from the start where the file does not tell where that is."""
        self._window.clear()
        times = self.scan.times[:-1]
        self._frames = enumerate(self.video.decoded())
        self._next = 0
        if first == 0 or self.scan.untimed:
            return
        sought = self.video.decoded_from(int(times[first]))
        frame = next(sought, None)
        number = None if frame is None or frame.pts is None else int(np.searchsorted(times, frame.pts))
        if number is not None and number <= first and times[number] == frame.pts:
            self._frames, self._next = _count(number, frame, sought), number


def _count(number: int, first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    yield number, first
    yield from enumerate(rest, number + 1)


def _thumbnail(frame: av.VideoFrame) -> np.ndarray:
    """A small grey picture, whose averaging over areas takes the noise out."""
    grey = frame.reformat(format="gray8", threads=1).to_ndarray()
    if frame.width <= THUMBNAIL:
        return grey
    height = max(1, round(frame.height * THUMBNAIL / frame.width))
    return cv2.resize(grey, (THUMBNAIL, height), interpolation=cv2.INTER_AREA)


def exact(rate: Fraction | float | str) -> Fraction:
    """A frame rate as people write it, exact: 23.976 and its like are multiples of 1/1001.

    Raises:
        DataError: it is no positive number.
    """
    try:
        value = Fraction(str(rate))
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise DataError(f"frame rate {rate!s}: expected a positive number, such as 60, 59.94 or 60000/1001")
    nearby = Fraction(-(-value.numerator // value.denominator) * 1000, 1001)
    return nearby if abs(nearby - value) < Fraction(6, 1000) else value
