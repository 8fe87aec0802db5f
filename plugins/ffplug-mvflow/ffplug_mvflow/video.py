"""Frames of a compressed video and their motion vectors, in one pass through the decoder."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.codec.context import Flags2
from torch import Tensor

from ffplug.apis.video import VideoFrame, VideoFrames
from ffplug.errors import DataError
from ffplug.ops import backward_warp, motion_vector_rasterize, motion_vector_table
from ffplug_mvflow.bitstream import h264_reference_frames, is_h264_reference
from ffplug_mvflow.fields import CELL, MotionField, flow_to_previous, no_vectors, spread, throw_to_previous, turn

logger = logging.getLogger(__name__)

CODECS = frozenset(("flv1", "h263", "h263p", "h264", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "snow", "wmv2"))
"""FFmpeg's software decoders that export motion vectors. Those of HEVC, VP8, VP9, AV1, MJPEG and FFV1 do not."""

FARTHER = 0.02
"""What each further reference must gain in mean absolute difference, in grey levels, to be preferred."""

FIRST_PACKETS = 300
"""Packets within which a video must have one that is no key frame, to be known for one with vectors at once."""

KINDS = {1: "I", 2: "P", 3: "B"}


@dataclasses.dataclass(eq=False)
class _Picture:
    """A decoded frame on its way through the reader."""

    position: int
    time: float
    order: float
    frame: av.VideoFrame
    kind: str
    reference: bool
    table: Tensor | None
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
    ) -> None:
        self._content = content
        self.b_frames = b_frames
        self.references = references
        super().__init__(path)
        self.seconds: Counter[str] = Counter(decode=0.0, vectors=0.0)
        with self._open() as container:
            stream = container.streams.video[0]
            self.codec = stream.codec_context.codec.canonical_name
            self._advice = (
                f"transcode it (`ffplug mvflow transcode {self.path} OUT.mp4`), or use a model without this prior"
            )
            if self.codec not in CODECS:
                raise DataError(
                    f"{self.path}: coded as {self.codec}, whose decoder gives no motion vectors: {self._advice}"
                )
            self.search = self._has_several(stream) if search == "auto" else bool(search)
            if self.codec == "h264":  # of other codecs, containers may call every frame a key frame
                flags: list[bool] = []
                for packet in container.demux(stream):
                    flags += [packet.is_keyframe] if packet.size else []
                    if flags[-1:] == [False] or len(flags) == FIRST_PACKETS:
                        break
                self._check_keys(len(flags), sum(flags))

    def _check_keys(self, frames: int, keys: int) -> None:
        if 1 < frames == keys:
            raise DataError(
                f"{self.path}: all of {frames} frames are key frames (intra only), so it has no motion vectors: "
                f"{self._advice}"
            )

    def _has_several(self, stream: av.VideoStream) -> bool:
        """Whether a list may hold more than one reference."""
        if self.codec != "h264":
            return False
        context = stream.codec_context
        count = h264_reference_frames(context.extradata or b"")
        return count is None or count > 1 + bool(context.has_b_frames)

    def _open(self) -> av.container.InputContainer:
        if self._content is None:
            return super()._open()
        return av.open(io.BytesIO(self._content))

    def coded_frames(self) -> Iterator[CodedFrame]:
        """Yield the frames in order of display, each with its motion vectors; a few are held back for their references.

        Raises:
            DataError: the picture changes its size, a B frame where none is allowed, interlaced pictures, or a file
                that ends early; what came before has been yielded by then.
        """
        history: deque[_Picture] = deque(maxlen=64)
        frames = keys = 0
        waiting: deque[_Picture | CodedFrame] = deque()
        error: DataError | None = None
        pictures = self._decode()
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
                yield first if isinstance(first, CodedFrame) else self._coded(first, history)
            if error is not None:
                raise error
            if picture is None:
                self._check_keys(frames, keys)
                return

    @staticmethod
    def _is_ready(picture: _Picture | CodedFrame, history: deque[_Picture]) -> bool:
        """Whether the references of a frame have been given out by the decoder, those in the future too."""
        if isinstance(picture, CodedFrame) or picture.table is None or not bool((picture.table[:, 1] > 0).any()):
            return True
        later = (other for other in history if other.position > picture.position)
        return any(other.reference and other.order < picture.order for other in later)

    def _decode(self) -> Iterator[_Picture | CodedFrame]:
        """Pictures in order of display; a lost one as a :class:`CodedFrame` with its problem."""
        position, packets, end, size = 0, 0, 0.0, None
        order: dict[int, tuple[int, bool]] = {}
        expected: list[float] = []
        intervals: list[float] = []
        previous: float | None = None
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # decoding whole frames in threads would swallow the last one's error
            stream.codec_context.flags2 |= Flags2.export_mvs
            declared, duration = stream.frames, self._duration(container)
            demuxed = container.demux(stream)
            while True:
                begun = time.perf_counter()
                packet = next(demuxed, None)
                if packet is None:
                    break
                if packet.size:
                    if packet.pts is not None:
                        reference = self.codec != "h264" or is_h264_reference(
                            bytes(packet), stream.codec_context.extradata
                        )
                        order[packet.pts] = packets, reference
                    packets += 1
                    if not packet.is_discard:
                        at = packet.pts * packet.time_base if packet.pts is not None else None
                        expected += [] if at is None else [float(at)]
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    if packet.pts is None:
                        expected.append(float(packets / self.rate))
                    frames = []
                self.seconds["decode"] += time.perf_counter() - begun
                for frame in frames:
                    at = frame.time if frame.time is not None else float(position / self.rate)
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
            for missing in sorted(expected):
                yield self._lost(position, missing, size)
                position += 1
        self._check_whole(packets, declared, duration, end, 0 if size is None else position)

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
        table = None if data is None else motion_vector_table([data.to_ndarray()])
        picture = _Picture(position, at, index, frame, kind, reference, table, None)
        if self.search and (reference or table is not None):
            plane = frame.planes[0] if frame.format.name.startswith(("yuv", "nv12", "gray")) else None
            if plane is not None and frame.format.components[0].bits == 8:
                lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            else:
                lines = frame.to_ndarray(format="gray")
            picture.luma = torch.from_numpy(lines.astype(np.float32))
        self.seconds["vectors"] += time.perf_counter() - begun
        return picture

    def _coded(self, picture: _Picture, history: deque[_Picture]) -> CodedFrame:
        begun = time.perf_counter()
        frame = picture.frame
        field = None if picture.table is None or not len(picture.table) else self._field(picture, history)
        self.seconds["vectors"] += time.perf_counter() - begun
        return CodedFrame(picture.position, picture.time, picture.kind, frame.height, frame.width, field, frame)

    def _field(self, picture: _Picture, history: deque[_Picture]) -> MotionField:
        frame = picture.frame
        flow, valid, _, sizes = (
            value[0] for value in motion_vector_rasterize(picture.table, 1, frame.height, frame.width, cell=CELL)
        )
        distance = torch.zeros(valid.shape, dtype=torch.int64)
        span = torch.zeros(valid.shape)
        since = max((other.time for other in history if other.position < picture.position), default=None)
        step = float(1 / self.rate) if since is None or since >= picture.time else picture.time - since
        for side, sign in enumerate((-1, 1)):
            if not bool(valid[side].any()):
                continue
            candidates = self._candidates(picture, history, sign)
            # A stream that begins in the middle refers to what is not there.
            steps = torch.tensor([other.position - picture.position for other in candidates] or [sign])
            times = torch.tensor([abs(other.time - picture.time) / step for other in candidates] or [1.0])
            which = torch.zeros(valid.shape[1:], dtype=torch.int64)
            if self.search and len(candidates) > 1:
                which = _nearest_in_looks(picture.luma, [other.luma for other in candidates], flow[side])
            distance[side] = torch.where(valid[side], steps[which], 0)
            span[side] = torch.where(valid[side], times[which].float(), 0)
        return MotionField(picture.kind, flow, valid, distance, span, sizes.prod(dim=1).float())

    def _candidates(self, picture: _Picture, history: deque[_Picture], sign: int) -> list[_Picture]:
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
                inputs = spread(throw_to_previous(flow_to_previous(coded.field)), coded.height, coded.width)
            if coded.frame.rotation % 360 and not coded.frame.rotation % 90:
                inputs = turn(inputs, coded.frame.rotation // 90)
            self.seconds["vectors"] += time.perf_counter() - after
            yield VideoFrame(image, inputs)


def _nearest_in_looks(luma: Tensor, references: list[Tensor], flow: Tensor) -> Tensor:
    """For every cell the index of the reference that, shifted by the cell's vector, looks most like it (h×w int64)."""
    height, width = luma.shape
    dense = flow.repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)[None, :, :height, :width].contiguous()
    # One after another: a reference at a time stays in the cache.
    costs = [
        F.avg_pool2d((backward_warp(other[None, None], dense, "border") - luma).abs(), CELL, ceil_mode=True)[0, 0]
        for other in references
    ]
    farther = FARTHER * torch.arange(len(costs)).view(-1, 1, 1)
    return (torch.stack(costs) + farther).argmin(dim=0)


def read_clip(path: str | Path, content: bytes | None = None) -> tuple[list[np.ndarray], list[MotionField | None]]:
    """All frames of a short clip as they are stored (H×W×3 uint8 RGB), and their motion vectors.

    Raises:
        DataError: as :class:`MotionVectorVideo`, and for a damaged frame.
    """
    images, fields = [], []
    for coded in MotionVectorVideo(path, content=content).coded_frames():
        if coded.problem is not None:
            raise DataError(coded.problem)
        images.append(coded.image())
        fields.append(coded.field)
    return images, fields
