"""Frames out of videos and into them, through PyAV."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from ffplug.errors import DataError
from ffplug.files import lack_of_room

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "gif", "m2ts", "m4v", "mkv", "mov", "mp4"),
        *("mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv", "y4m"),
    )
)


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video with what its file tells beside the picture.

    Attributes:
        image: H×W×3 uint8 RGB.
        inputs: further inputs of the pair that the frame before and this one make, by name; arrays C×H×W or H×W on the
            grid of the frame before. See :class:`ffplug.models.parts.Prior`.
        problem: what is wrong with the frame, which is lost then, or None.
    """

    image: np.ndarray
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    problem: str | None = None


class VideoFrames:
    """The frames of a video file, in order of display, one in memory at a time.

    Every decoded frame counts as one, whatever its time stamp, so a variable frame rate changes nothing. The
    rotation that phones note beside upright video is applied.

    Attributes:
        path: the file.
        count: number of frames that the file declares, or None.
        rate: frames per second, on average.

    Args:
        path: a video file that FFmpeg can read.

    Raises:
        DataError: the file is missing, no video, or damaged from the start on.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._open() as container:
            self._describe(container)

    def _describe(self, container: av.container.InputContainer) -> None:
        stream = container.streams.video[0]
        self.count: int | None = stream.frames or None
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)

    def count_packets(self) -> int:
        """Return how many frames to expect where the file does not declare it; quick, as nothing is decoded."""
        with self._open() as container:
            return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))

    def _open(self) -> av.container.InputContainer:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such video file")
        try:
            container = av.open(str(self.path))
        except av.FFmpegError as error:
            raise DataError(f"{self.path}: cannot be opened as a video ({error.strerror}); 0 frames read") from error
        if not container.streams.video:
            container.close()
            raise DataError(f"{self.path}: holds no video stream, or is cut off before its first frame; 0 frames read")
        return container

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, each H×W×3 uint8 RGB; errors are those of :meth:`decoded`."""
        return map(self._upright, self.decoded())

    def decoded(self) -> Iterator[av.VideoFrame]:
        """Yield the frames as they are stored: in the video's own pixel format, not turned, with their time stamps.

        Raises:
            DataError: after the last good frame, when the file is damaged or ends early; says how many came before.
        """
        read, packets, end = 0, 0, 0.0
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # decoding whole frames in threads would swallow the last one's error
            declared, duration = stream.frames, self._duration(container)
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    for frame in packet.decode():
                        if frame.is_corrupt:
                            raise DataError(f"{self.path}: frame {read} is damaged; {read} frames read before it")
                        read += 1
                        end = self._end(frame)
                        yield frame
            except av.FFmpegError as error:
                raise DataError(
                    f"{self.path}: cannot be decoded further ({error.strerror}); {read} frames read before"
                ) from error
        self._check_whole(packets, declared, duration, end, read)

    def _check_whole(self, packets: int, declared: int, duration: float, end: float, read: int) -> None:
        """Fail where a file ends before what it declares, or held no frame."""
        if packets < declared:
            raise DataError(f"{self.path}: is cut off: declares {declared} frames; {read} frames read")
        if not declared and duration - end > 2 / self.rate:
            raise DataError(
                f"{self.path}: is cut off: declares {duration:.2f} s, ends at {end:.2f} s; {read} frames read"
            )
        if not read:
            raise DataError(f"{self.path}: holds no frame that can be decoded; 0 frames read")

    @staticmethod
    def _duration(container: av.container.InputContainer) -> float:
        """Seconds of video that the file declares, or 0 where only another stream's length is known."""
        stream = container.streams.video[0]
        if stream.duration:
            return float(stream.duration * stream.time_base)
        if container.duration and len(container.streams) == 1:
            return container.duration / av.time_base
        return 0.0

    @staticmethod
    def _end(frame: av.VideoFrame) -> float:
        start = frame.time or 0.0
        return start + float((frame.duration or 0) * (frame.time_base or 0))

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        turns, rest = divmod(frame.rotation, 90)
        if rest:
            logger.warning("%s: rotation by %d degrees is left as it is", self.path, frame.rotation)
            turns = 0
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


class VideoWriter:
    """Writes RGB pictures to a video file, H.264 where FFmpeg has it; the file appears when all is written.

    A context manager. When its block raises, the pictures written so far are still finished into the file.

    Args:
        path: the file to write; its suffix decides the container.
        rate: frames per second.
    """

    def __init__(self, path: str | os.PathLike[str], rate: Fraction | int = 25) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in VIDEO_SUFFIXES:
            expected = " ".join(sorted(VIDEO_SUFFIXES))
            raise DataError(f"{self.path}: not a video suffix; expected one of {expected}")
        self.rate = Fraction(rate).limit_denominator(65535)
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        self._container: av.container.OutputContainer | None = None
        self._size = (0, 0)

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray) -> None:
        """Append a picture, H×W×3 uint8 RGB; all must have the size of the first."""
        if self._container is None:
            self._start(picture)
        if picture.shape[:2] != self._size:
            raise DataError(f"{self.path}: pictures of two sizes, {self._size} and {picture.shape[:2]}")
        bottom, right = (side % 2 for side in self._size)  # chroma at half resolution wants even sides
        picture = np.pad(picture, ((0, bottom), (0, right), (0, 0)), mode="edge")
        self._mux(av.VideoFrame.from_ndarray(picture, format="rgb24"))

    def _start(self, picture: np.ndarray) -> None:
        self._size = picture.shape[:2]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._cleaned():
            self._container = av.open(str(self._partial), "w")
        codec = "gif" if self.path.suffix.lower() == ".gif" else "libx264"
        if codec not in av.codecs_available or codec not in self._container.supported_codecs:
            codec = self._container.default_video_codec
        self._stream = self._container.add_stream(codec, rate=self.rate)
        self._stream.height, self._stream.width = (side + side % 2 for side in self._size)
        self._stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"

    def _mux(self, frame: av.VideoFrame | None) -> None:
        with self._cleaned():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)

    @contextmanager
    def _cleaned(self) -> Iterator[None]:
        """Leave nothing of the file where it can't be written."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = lack_of_room(error, self._partial)
            hint = "make room and give the same command again" if reason else "try .mp4"
            container, self._container = self._container, None
            if container is not None:
                with suppress(av.FFmpegError, OSError):
                    container.close()
            self._partial.unlink(missing_ok=True)
            reason = reason or error.strerror
            raise DataError(f"{self.path}: cannot be written as a video ({reason}); {hint}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is not None:
            self._mux(None)
            with self._cleaned():
                self._container.close()
            os.replace(self._partial, self.path)
