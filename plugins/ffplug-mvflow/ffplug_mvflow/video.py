"""Frames of a compressed video and their motion vectors, in one pass through the decoder."""

from __future__ import annotations

import dataclasses
import io
import itertools
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from av.codec.context import Flags, Flags2
from torch import Tensor

from ffplug.apis.video import VideoFrame, VideoFrames
from ffplug.errors import DataError
from ffplug.ops import motion_vector_field
from ffplug_mvflow.bitstream import h264_parameters, is_h264_reference
from ffplug_mvflow.fields import CELL, MotionField, flow_from_previous, no_vectors, spread, turn

logger = logging.getLogger(__name__)

CODECS = frozenset(("flv1", "h263", "h263p", "h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "snow", "wmv2"))
"""FFmpeg's software decoders that export motion vectors. Those of HEVC, VP8, VP9, AV1, MJPEG and FFV1 do not."""

FARTHER = 0.02
"""What each further reference must gain in mean absolute difference, in grey levels, to be preferred."""

FIRST_PACKETS = 300
"""Packets within which a video must have one that is no key frame, to be known for one with vectors at once."""

KINDS = {1: "I", 2: "P", 3: "B"}

MOST_REFERENCES = 16
"""Frames that a decoder keeps to refer to, at most (H.264, annex A)."""

MOST_THREADS = 8


@dataclasses.dataclass(eq=False)
class _Picture:
    """A decoded frame on its way through the reader."""

    position: int
    time: float
    order: float
    frame: av.VideoFrame | None
    kind: str
    reference: bool
    vectors: Tensor | None
    looks_ahead: bool
    luma: Tensor | None


@dataclasses.dataclass(frozen=True)
class CodedFrame:
    """A decoded frame with its motion vectors.

    Attributes:
        position: in order of display, from 0.
        time: in seconds.
        kind: ``I``, ``P`` or ``B``; empty where the frame is lost.
        height: in pixels, before any rotation.
        width: in pixels, before any rotation.
        field: the motion vectors, None where there are none (key frames) or the frame is lost.
        frame: PyAV's frame, None where it is lost.
        problem: why it is lost, or None.
    """

    position: int
    time: float
    kind: str
    height: int
    width: int
    field: MotionField | None
    frame: av.VideoFrame | None
    problem: str | None = None

    def image(self) -> np.ndarray:
        """The picture as it is stored, H×W×3 uint8 RGB."""
        return self.frame.to_ndarray(format="rgb24")


class MotionVectorVideo(VideoFrames):
    """A compressed video as frames with motion vectors, streaming, decoded once.

    Iterating gives what :class:`ffplug.FlowInferencer <ffplug.apis.inferencer.FlowInferencer>` wants: each frame with
    the flow from the frame before to it, thrown there from the vectors. :meth:`coded_frames` gives the vectors as the
    stream has them, on the frame that they belong to.

    FFmpeg does not tell which frame a vector refers to, only whether it is past or future. It is the nearest reference
    that was decoded before; in H.264 with more than one reference a list, the one of the nearest ones whose luma,
    shifted by the vector, is most like the cell (``search``).

    A frame that cannot be decoded is reported by its time and left out, and the rest is done; pictures that were
    predicted from it may suffer until the next key frame.

    Attributes:
        seconds: time spent so far on ``decode`` (with the conversion to RGB) and on ``vectors``.

    Args:
        path: a video whose decoder exports motion vectors (:data:`CODECS`).
        b_frames: whether B frames are taken; False makes the first one an error.
        search: look for the reference of every cell: ``"auto"`` where the stream may have several, or True or False.
        references: among how many of the nearest references.
        content: the file's content, which is read in place of the file.
        threads: of the decoder; None for as many as torch has (``torch.get_num_threads()``), at most 8. All give the
            same.

    Raises:
        DataError: no such file, no video, or one without motion vectors; the message says what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        b_frames: bool = True,
        search: bool | str = "auto",
        references: int = 4,
        content: bytes | None = None,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self._content = content
        self.b_frames = b_frames
        self.references = references
        self.threads = threads or min(torch.get_num_threads(), MOST_THREADS)
        self.seconds: Counter[str] = Counter(decode=0.0, vectors=0.0)
        container = self._open()
        try:
            self._describe(container)
            stream = container.streams.video[0]
            self.codec = stream.codec_context.codec.canonical_name
            self._advice = (
                f"transcode it (`ffplug mvflow transcode {self.path} OUT.mp4`), or use a model without this prior"
            )
            if self.codec not in CODECS:
                raise DataError(
                    f"{self.path}: coded as {self.codec}, whose decoder gives no motion vectors: {self._advice}"
                )
            parameters = None
            several = False
            if self.codec == "h264":
                parameters = h264_parameters(stream.codec_context.extradata or b"")
                several = parameters is None or parameters.references > 1 + bool(stream.codec_context.has_b_frames)
            self.search = several if search == "auto" else bool(search)
            # Vectors lie on the picture before it is cropped, in cells; what the crop does not fit is rounded.
            crop = (0, 0) if parameters is None else (parameters.left, parameters.top)
            self._crop = tuple((side + CELL // 2) // CELL * CELL for side in crop)
            packets: list[av.Packet] = []
            for packet in container.demux(stream):
                packets.append(packet)
                # Of other codecs, containers may call every frame a key frame.
                if self.codec != "h264" or not packet.is_keyframe or len(packets) == FIRST_PACKETS:
                    break
            if self.codec == "h264":
                keys = [packet.is_keyframe for packet in packets if packet.size]
                self._check_keys(len(keys), sum(keys))
        except BaseException:
            container.close()
            raise
        # The file is read on from here, the first time.
        self._begun: tuple[av.container.InputContainer, list[av.Packet]] | None = container, packets

    def _check_keys(self, frames: int, keys: int) -> None:
        if 1 < frames == keys:
            raise DataError(
                f"{self.path}: all of {frames} frames are key frames (intra only), so it has no motion vectors: "
                f"{self._advice}"
            )

    def _open(self) -> av.container.InputContainer:
        if self._content is None:
            container = super()._open()
        else:
            try:
                container = av.open(io.BytesIO(self._content))
            except av.FFmpegError as error:
                raise DataError(f"{self.path}: cannot be opened as a video ({error.strerror})") from error
        context = container.streams.video[0].codec_context
        context.flags |= Flags.unaligned  # crop exactly as the stream says
        context.flags2 |= Flags2.export_mvs
        context.thread_type = "SLICE"
        return container

    def coded_frames(self, start: int = 0) -> Iterator[CodedFrame]:
        """Yield the frames in order of display, each with its motion vectors; a few are held back for their references.

        Args:
            start: number of the first frame that is wanted. Decoding begins at a key frame before it; frames are
                counted by time, so the frame rate must be constant.

        Raises:
            DataError: the picture changes its size, a B frame where none is allowed, interlaced pictures, or a file
                that ends early; what came before has been yielded by then.
        """
        history: list[_Picture] = []
        frames = keys = 0
        since: float | None = None
        waiting: deque[_Picture | CodedFrame] = deque()
        error: DataError | None = None
        pictures = self._decode(start)
        while True:
            picture = None
            try:
                picture = next(pictures, None)
            except DataError as caught:
                error = caught
            if picture is not None:
                waiting.append(picture)
                if isinstance(picture, _Picture):
                    history.append(picture)
                    frames, keys = frames + 1, keys + (picture.kind == "I")
            while waiting and (picture is None or self._is_ready(waiting[0], history)):
                first = waiting.popleft()
                if isinstance(first, _Picture):
                    coded = self._coded(first, history, since)
                    since, first.frame = first.time, None
                    history = self._kept(history, first.position)
                    first = coded
                if first.position >= start:
                    yield first
            if error is not None:
                raise error
            if picture is None:
                self._check_keys(frames, keys)
                return

    @staticmethod
    def _is_ready(picture: _Picture | CodedFrame, history: list[_Picture]) -> bool:
        """Whether the references of a frame have been given out by the decoder, those in the future too."""
        if isinstance(picture, CodedFrame) or not picture.looks_ahead:
            return True
        later = (other for other in history if other.position > picture.position)
        return any(other.reference and other.order < picture.order for other in later)

    @staticmethod
    def _kept(history: list[_Picture], position: int) -> list[_Picture]:
        """What the frames behind ``position`` may still refer to."""
        past = [other for other in history if other.position <= position and other.reference]
        return past[-MOST_REFERENCES:] + [other for other in history if other.position > position]

    def _take(self, start: int) -> tuple[av.container.InputContainer, Iterable[av.Packet]]:
        """The open file, and its packets from the beginning on, or from a key frame before frame ``start``."""
        container, packets = self._begun or (self._open(), [])
        self._begun = None
        stream = container.streams.video[0]
        if self.threads > 1 and (not packets or packets[0].pts is not None):  # what is lost is found by its time
            stream.thread_type = "FRAME"
            stream.codec_context.thread_count = self.threads
        early = max(start - 4, 0) / self.rate  # the order of decoding, by which files are sought, is not that of time
        if early:
            try:
                container.seek((stream.start_time or 0) + int(early / stream.time_base), stream=stream)
                packets = []
            except av.FFmpegError:
                pass  # read from the beginning
        return container, itertools.chain(packets, container.demux(stream))

    def _decode(self, start: int) -> Iterator[_Picture | CodedFrame]:
        """Pictures in order of display; a lost one as a :class:`CodedFrame` with its problem."""
        position, packets, end, size = 0, 0, 0.0, None
        order: dict[int, tuple[int, bool]] = {}
        expected: list[float] = []
        intervals: list[float] = []
        previous: float | None = None
        container, demuxed = self._take(start)
        demuxed = iter(demuxed)
        with container:
            stream = container.streams.video[0]
            extradata, step = stream.codec_context.extradata, stream.time_base
            declared, duration = stream.frames, self._duration(container)
            origin, first = (stream.start_time or 0) * step, None
            while True:
                begun = time.perf_counter()
                packet = next(demuxed, None)
                if packet is None:
                    break
                if packet.size:
                    at = None if packet.pts is None else float(packet.pts * step)
                    if packet.pts is not None:
                        reference = self.codec != "h264" or is_h264_reference(memoryview(packet), extradata)
                        order[packet.pts] = packets, reference
                    if first is None:
                        first = -float("inf") if at is None or at <= origin else at
                        position = round((at - origin) * self.rate) if first > 0 else 0
                    packets += 1
                    if not packet.is_discard and at is not None and at >= first:
                        expected.append(at)
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    if packet.size and packet.pts is None:
                        expected.append(float(packets / self.rate))
                    frames = []
                if not packet.size and self.threads > 1 and len(frames) < len(expected):
                    frames = self._tail(previous)
                self.seconds["decode"] += time.perf_counter() - begun
                for frame in frames:
                    at = frame.time if frame.time is not None else float(position / self.rate)
                    if at < first:  # of the group of pictures before the one that reading began with
                        continue
                    # What should have come before and did not is lost.
                    for missing in sorted(value for value in expected if value < at - 1e-6):
                        yield self._lost(position, missing, size)
                        previous = missing
                        position += 1
                    expected = [value for value in expected if value > at + 1e-6]
                    if frame.is_corrupt:
                        yield self._lost(position, at, size)
                    else:
                        size = self._check(frame, at, size)
                        yield self._picture(frame, position, at, order)
                    if previous is not None and at > previous:
                        self._check_rate(intervals, at - previous, at)
                    previous, end = at, self._end(frame)
                    position += 1
                if not packet.size:  # the decoder has been emptied
                    break
            for missing in sorted(expected):
                yield self._lost(position, missing, size)
                position += 1
        if first is None or first < 0:
            self._check_whole(packets, declared, duration, end, 0 if size is None else position)

    def _tail(self, after: float | None) -> list[av.VideoFrame]:
        """The last frames once more, in one thread: several give up all they have when one of them is damaged."""
        frames: list[av.VideoFrame] = []
        after = -1.0 if after is None else after
        with self._open() as container:
            stream = container.streams.video[0]
            try:
                container.seek(max(int(after / stream.time_base), 0), stream=stream)
            except av.FFmpegError:
                return frames
            for packet in container.demux(stream):
                try:
                    found = packet.decode()
                except av.InvalidDataError:
                    found = []
                frames += (frame for frame in found if frame.time is not None and frame.time > after + 1e-6)
                if not packet.size:
                    break
        return frames

    def _check_rate(self, intervals: list[float], interval: float, at: float) -> None:
        """Say once that the frame rate varies."""
        if not intervals:
            intervals.append(interval)
        elif len(intervals) == 1 and not 0.75 < interval / intervals[0] < 1.34:
            intervals.append(interval)
            logger.warning(
                "%s: variable frame rate (%.3f s, then %.3f s at %.3f s): vectors are scaled by the time stamps, as if "
                "motion were even; `ffplug mvflow transcode` writes a constant rate",
                self.path,
                intervals[0],
                interval,
                at,
            )

    def _lost(self, position: int, at: float, size: tuple[int, int] | None) -> CodedFrame:
        problem = f"{self.path}: the frame at {at:.3f} s (number {position}) is damaged and left out"
        return CodedFrame(position, at, "", *(size or (0, 0)), None, None, problem)

    def _check(self, frame: av.VideoFrame, at: float, size: tuple[int, int] | None) -> tuple[int, int]:
        found = frame.height, frame.width
        if size not in (None, found):
            sizes = " to ".join(f"{width}×{height}" for height, width in (size, found))
            raise DataError(
                f"{self.path}: the picture changes its size from {sizes} (W×H) at {at:.3f} s; what came before is "
                f"done. Split the file there (`ffmpeg -ss {at:.3f} -i {self.path} ...`), or scale it to one size"
            )
        if frame.interlaced_frame:
            raise DataError(
                f"{self.path}: the frame at {at:.3f} s is interlaced, and vectors of fields are no motion between "
                "frames: deinterlace it (`ffmpeg -vf bwdif`)"
            )
        if int(frame.pict_type) == 3 and not self.b_frames:
            raise DataError(
                f"{self.path}: the frame at {at:.3f} s is a B frame, and b_frames=False allows none: allow them, or "
                f"transcode without (`ffplug mvflow transcode {self.path} OUT.mp4`)"
            )
        return found

    def _picture(self, frame: av.VideoFrame, position: int, at: float, order: dict[int, tuple[int, bool]]) -> _Picture:
        begun = time.perf_counter()
        kind = KINDS.get(int(frame.pict_type), "P")
        anchor = kind != "B"
        # Without time stamps the order of decoding is that of the anchors, and B frames come after them.
        index, reference = order.pop(frame.pts, (position if anchor else float("inf"), anchor))
        if self.codec != "h264":
            reference = anchor
        data = frame.side_data.get("MOTION_VECTORS")
        vectors = None
        if data is not None and len(data):  # torch takes no memory that is read-only as PyAV's is
            vectors = torch.from_numpy(np.frombuffer(data, np.int32).reshape(-1, 10).copy())
        looks_ahead = kind == "B" and vectors is not None and bool((vectors[:, 0] > 0).any())
        picture = _Picture(position, at, index, frame, kind, reference, vectors, looks_ahead, None)
        if self.search and (reference or vectors is not None):
            picture.luma = _luma(frame)
        self.seconds["vectors"] += time.perf_counter() - begun
        return picture

    def _coded(self, picture: _Picture, history: list[_Picture], since: float | None) -> CodedFrame:
        begun = time.perf_counter()
        frame = picture.frame
        field = None if picture.vectors is None else self._field(picture, history, since)
        self.seconds["vectors"] += time.perf_counter() - begun
        return CodedFrame(picture.position, picture.time, picture.kind, frame.height, frame.width, field, frame)

    def _field(self, picture: _Picture, history: list[_Picture], since: float | None) -> MotionField:
        frame = picture.frame
        step = float(1 / self.rate) if since is None or since >= picture.time else picture.time - since
        steps, spans, pictures = [], [], []
        for sign in (-1, 1) if picture.looks_ahead else (-1,):
            candidates = self._candidates(picture, history, sign)
            # A stream that begins in the middle refers to what is not there.
            steps += [other.position - picture.position for other in candidates] or [sign]
            spans += [abs(other.time - picture.time) / step for other in candidates] or [1.0]
            pictures += [other.luma for other in candidates] or [picture.luma]
        if not picture.looks_ahead:
            steps, spans, pictures = [*steps, 1], [*spans, 1.0], [*pictures, picture.luma]
        left, top = self._crop
        looks = (picture.luma, pictures) if self.search else ()
        found = motion_vector_field(
            picture.vectors,
            frame.height,
            frame.width,
            steps,
            spans,
            *looks,
            left=left,
            top=top,
            penalty=FARTHER,
            cell=CELL,
        )
        return MotionField(picture.kind, *found)

    def _candidates(self, picture: _Picture, history: list[_Picture], sign: int) -> list[_Picture]:
        """References in one direction that were decoded before, nearest first."""
        found = [
            other
            for other in history
            if other.reference and other.order < picture.order and (other.position - picture.position) * sign > 0
        ]
        found.sort(key=lambda other: abs(other.position - picture.position))
        return found[: self.references if self.search else 1]

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield each frame with the flow from the frame before to it (see :data:`~ffplug_mvflow.fields.INPUTS`).

        Raises:
            DataError: as :meth:`coded_frames`.
        """
        for coded in self.coded_frames():
            if coded.problem is not None:
                yield VideoFrame(np.zeros((0, 0, 3), np.uint8), problem=coded.problem)
                continue
            begun = time.perf_counter()
            image = self._upright(coded.frame)
            self.seconds["decode"] += (after := time.perf_counter()) - begun
            if coded.field is None:
                inputs = no_vectors(coded.height, coded.width)
            else:
                inputs = spread(flow_from_previous(coded.field), coded.height, coded.width)
            if coded.frame.rotation % 360 and not coded.frame.rotation % 90:
                inputs = turn(inputs, coded.frame.rotation // 90)
            self.seconds["vectors"] += time.perf_counter() - after
            yield VideoFrame(image, inputs)


def _luma(frame: av.VideoFrame) -> Tensor:
    """The luma of a frame, H×W uint8; where it has 8 bits, its memory is the frame's."""
    planar = frame.format.name.startswith(("yuv", "nv12", "gray"))
    if not planar or frame.format.components[0].bits != 8:
        frame = frame.reformat(format="gray")
    plane = frame.planes[0]
    whole = torch.frombuffer(plane, dtype=torch.uint8)
    return whole.as_strided((plane.height, plane.width), (plane.line_size, 1))


def read_clip(path: str | Path, content: bytes | None = None) -> tuple[list[np.ndarray], list[MotionField | None]]:
    """All frames of a short clip as they are stored (H×W×3 uint8 RGB), and their motion vectors.

    Raises:
        DataError: as :class:`MotionVectorVideo`, and for a damaged frame.
    """
    images, fields = [], []
    for coded in MotionVectorVideo(path, content=content, threads=1).coded_frames():
        if coded.problem is not None:
            raise DataError(coded.problem)
        images.append(coded.image())
        fields.append(coded.field)
    return images, fields
