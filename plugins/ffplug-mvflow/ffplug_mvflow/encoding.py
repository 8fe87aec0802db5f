"""Encoding of frames into clips whose motion vectors are clean, and the clips' description."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError

ENCODERS = {"h264": "libx264", "mpeg4": "mpeg4", "mpeg2": "mpeg2video", "mpeg1": "mpeg1video"}
"""Codecs that clips are encoded with, and FFmpeg's encoders of them."""

PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a clip is encoded. The defaults give vectors to one past reference, found by x264's usual search.

    Args:
        codec: one of :data:`ENCODERS`.
        quality: CRF of H.264 (0..51), quantiser of the others (1..31); higher is worse.
        preset: of x264: how long it searches; the others have none.
        gop: frames from one key frame to the next.
        b_frames: B frames between two others (H.264 and the MPEGs; 0 for none).
        references: past references that H.264 may choose from.

    Raises:
        ConfigError: a value is unknown or out of its range.
    """

    codec: str = "h264"
    quality: int = 23
    preset: str = "medium"
    gop: int = 250
    b_frames: int = 0
    references: int = 1

    def __post_init__(self) -> None:
        choose("codec", self.codec, tuple(ENCODERS))
        choose("preset", self.preset, PRESETS)
        low, high = (0, 51) if self.codec == "h264" else (1, 31)
        if not low <= self.quality <= high:
            raise ConfigError(f"quality={self.quality}: {self.codec} has {low} to {high}")
        if self.gop < 1 or not 0 <= self.b_frames <= 16 or not 1 <= self.references <= 16:
            raise ConfigError(
                f"gop={self.gop}, b_frames={self.b_frames}, references={self.references}: expected gop >= 1, b_frames "
                "in 0..16, references in 1..16"
            )

    @property
    def name(self) -> str:
        """Such as ``h264_medium_crf23``, fit for a folder."""
        middle = f"_{self.preset}_crf" if self.codec == "h264" else "_q"
        more = f"_b{self.b_frames}" if self.b_frames else ""
        more += f"_ref{self.references}" if self.references > 1 else ""
        return f"{self.codec}{middle}{self.quality}{more}"

    @property
    def repeat_last(self) -> bool:
        """Whether a clip's last frame must come twice to have vectors: decoders that reorder give none at the end."""
        return self.codec in ("mpeg1", "mpeg2") or (self.codec == "mpeg4" and self.b_frames > 0)

    def options(self) -> dict[str, str]:
        """The encoder's options."""
        if self.codec != "h264":
            quantiser = str(self.quality)
            common = {"qmin": quantiser, "qmax": quantiser, "b": "100000000", "sc_threshold": "1000000000"}
            return {**common, "g": str(self.gop), "bf": str(self.b_frames)}
        details = f"bframes={self.b_frames}:ref={self.references}:keyint={self.gop}"
        details += ":scenecut=0:weightp=0:b-pyramid=none:threads=1"
        return {"crf": str(self.quality), "preset": self.preset, "x264-params": details}


def encode_clip(
    frames: Iterable[np.ndarray],
    encoding: Encoding,
    target: str | os.PathLike[str] | io.BytesIO,
    rate: Fraction | int = 25,
) -> None:
    """Encode frames into an MP4, 8 bits, 4:2:0; odd sides get their last row or column twice.

    Args:
        frames: H×W×3 uint8 RGB, all of one size.
        encoding: how.
        target: a file, or a buffer.
        rate: frames per second.

    Raises:
        DataError: no frame, or FFmpeg cannot encode.
    """
    name = ENCODERS[encoding.codec]
    target = target if isinstance(target, io.BytesIO) else os.fspath(target)
    stream = None
    try:
        with av.open(target, "w", format="mp4") as container:
            for frame in frames:
                bottom, right = (side % 2 for side in frame.shape[:2])
                frame = np.pad(frame, ((0, bottom), (0, right), (0, 0)), mode="edge")
                if stream is None:
                    stream = container.add_stream(name, rate=rate, options=encoding.options())
                    stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
                for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                    container.mux(packet)
            if stream is None:
                raise DataError("no frame to encode")
            for packet in stream.encode():
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise DataError(f"{name} cannot encode the clip ({error})") from error


def encode_pair(image1: np.ndarray, image2: np.ndarray, encoding: Encoding) -> bytes:
    """Encode a pair as a clip in memory, second frame first: the vectors of frame 1 point into frame 2, as flow does.

    Args:
        image1: H×W×3 uint8 RGB.
        image2: the same.
        encoding: how.

    Returns:
        An MP4.
    """
    buffer = io.BytesIO()
    encode_clip([image2, image1, *[image1] * encoding.repeat_last], encoding, buffer)
    return buffer.getvalue()


def versions() -> dict[str, Any]:
    """What encoded and decoded, for records."""
    return {"pyav": av.__version__, **{name: ".".join(map(str, v)) for name, v in av.library_versions.items()}}


def decode_pair(
    content: bytes, size: Sequence[int], where: str
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Undo :func:`encode_pair`.

    Args:
        content: an MP4.
        size: height and width of the frames.
        where: what to call it in errors.

    Returns:
        Frames 1 and 2 as decoded, and the inputs of a prior (:data:`ffplug_mvflow.fields.INPUTS`).

    Raises:
        DataError: it is no clip of two frames, or damaged.
    """
    from ffplug_mvflow.fields import flow_to_previous, no_vectors, spread
    from ffplug_mvflow.video import read_clip

    images, fields = read_clip(where, content)
    height, width = size
    if len(images) not in (2, 3):
        raise DataError(f"{where}: expected a clip of two frames, found {len(images)}")
    second, first = (image[:height, :width] for image in images[:2])
    found = first.shape[:2]  # less where the clip is smaller than it should be
    if fields[1] is None:  # the whole frame is intra-coded
        return first, second, no_vectors(*found)
    return first, second, spread(flow_to_previous(fields[1]), *found)
