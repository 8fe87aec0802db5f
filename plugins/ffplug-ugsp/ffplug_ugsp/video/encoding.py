"""Writing parts of a video, each by an encoder of its own, so that parts do not depend on each other."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.sidedata.sidedata import Type as SideData

from ffplug.errors import ConfigError, did_you_mean
from ffplug_ugsp.video.errors import writing

_QUALITY = {"libx264": "crf", "libx265": "crf", "libvpx-vp9": "crf", "libaom-av1": "crf", "libsvtav1": "crf",
            "h264_nvenc": "cq", "hevc_nvenc": "cq"}  # fmt: skip
"""What an encoder calls its constant quality."""
_PRESETS = ("libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc")
_PQ = 16
"""FFmpeg's number of the transfer curve of HDR10."""


@dataclass(frozen=True)
class Encoding:
    """How the result is encoded.

    Args:
        codec: an encoder of FFmpeg; None takes H.264, and H.265 for more than 8 bits.
        quality: its constant quality, lower is better; None takes 18 where there is such a setting.
        preset: how long it tries, None for its own.
        options: further options of the encoder, by name.
    """

    codec: str | None = None
    quality: int | None = None
    preset: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def encoder(self, deep: bool) -> str:
        """The encoder's name.

        Raises:
            ConfigError: FFmpeg has no such encoder of video.
        """
        name = self.codec or ("libx265" if deep else "libx264")
        try:
            codec = av.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            near = did_you_mean(name, av.codecs_available)
            raise ConfigError(f"--codec {name}: FFmpeg has no such encoder here{near}") from None
        if codec.type != "video":
            raise ConfigError(f"--codec {name}: expected an encoder of video, found one of {codec.type}")
        return name

    def settings(self, encoder: str, like: av.VideoFrame) -> dict[str, str]:
        """The encoder's options, with the static metadata of HDR10 if there are any.

        Raises:
            ConfigError: an option that the encoder does not have, or no way to keep the metadata of HDR.
        """
        settings = dict(self.options)
        if encoder in _QUALITY:
            settings.setdefault(_QUALITY[encoder], str(18 if self.quality is None else self.quality))
        elif self.quality is not None:
            raise ConfigError(f"--quality is not known of {encoder}; give its own option: --encoder-option NAME=VALUE")
        if encoder in _PRESETS and self.preset is not None:
            settings.setdefault("preset", self.preset)
        elif self.preset is not None:
            raise ConfigError(f"--preset is not known of {encoder}; give its own option: --encoder-option NAME=VALUE")
        hdr = _static_hdr(like)
        if int(like.color_trc) == _PQ and hdr and encoder != "libx265":
            raise ConfigError(f"the video's HDR metadata cannot be kept with {encoder}: leave --codec away, or libx265")
        if encoder == "libx265":
            given = settings.get("x265-params")
            settings["x265-params"] = ":".join([*([given] if given else []), "log-level=error", *hdr])
        return settings


class PartWriter:
    """Encodes parts of the result, frames in order, each into a file of its own.

    Args:
        encoding: how.
        like: a frame of the input.
        aspect: width of a pixel by its height.

    Raises:
        ConfigError: the encoder cannot take such frames, or an option is wrong.
    """

    def __init__(self, encoding: Encoding, like: av.VideoFrame, aspect: Fraction | None) -> None:
        self.like, self.aspect = like, aspect
        deep = max(component.bits for component in like.format.components) > 8
        self.encoder = encoding.encoder(deep)
        self.settings = encoding.settings(self.encoder, like)
        formats = [fmt.name for fmt in av.Codec(self.encoder, "w").video_formats or ()]
        self.format = like.format.name
        if formats and self.format not in formats:
            if any(component.is_alpha for component in like.format.components):
                raise ConfigError(
                    f"{self.encoder} cannot encode {self.format}, which has alpha; try --codec ffv1 into .mkv"
                )
            self.format = "yuv420p10le" if deep and "yuv420p10le" in formats else "yuv420p"
        halved = av.VideoFormat(self.format, 2, 2).components[-1]
        odd = (halved.width < 2 and like.width % 2) or (halved.height < 2 and like.height % 2)
        if odd and self.encoder in ("libx264", "libx265"):
            raise ConfigError(
                f"{self.encoder} cannot encode {self.format} of {like.width}×{like.height}, an odd side; cut a line "
                "off first, or try --codec ffv1 into .mkv"
            )

    def write(self, path: Path, frames: Iterable[av.VideoFrame], rate: Fraction) -> None:
        """Write a part.

        Args:
            path: the file, Matroska.
            frames: its frames in order.
            rate: frames per second.

        Raises:
            ConfigError: the encoder refuses its options.
            DataError: the disk is full, or cannot be written to.
        """
        with writing(path), av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream(self.encoder, rate=rate, options=self.settings)
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = self.like.width, self.like.height, self.format
            context.time_base = 1 / rate
            if self.aspect:
                context.sample_aspect_ratio = self.aspect
            for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
                setattr(context, name, getattr(self.like, name))
            try:
                context.open()
            except (av.FFmpegError, ValueError) as error:
                raise ConfigError(f"{self.encoder} refuses {self.settings}: {error}") from error
            for count, frame in enumerate(frames):
                if frame.format.name != self.format:
                    frame = frame.reformat(format=self.format)
                frame.pts, frame.time_base = count, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _static_hdr(frame: av.VideoFrame) -> list[str]:
    """HDR10's metadata of the whole video as x265 takes them, out of FFmpeg's structures in a frame."""
    found = []
    mastering = frame.side_data.get(SideData.MASTERING_DISPLAY_METADATA)
    if mastering is not None:
        numbers = struct.unpack_from("=20i2i", bytes(mastering))
        values = [Fraction(a, b) if b else Fraction(0) for a, b in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
        if numbers[20] and numbers[21]:
            points = dict(
                zip("RGB", zip(values[:6:2], values[1:6:2], strict=True), strict=True), WP=(values[6], values[7])
            )
            text = "".join(
                f"{name}({round(points[name][0] * 50000)},{round(points[name][1] * 50000)})"
                for name in ("G", "B", "R", "WP")
            )
            found.append(f"master-display={text}L({round(values[9] * 10000)},{round(values[8] * 10000)})")
    light = frame.side_data.get(SideData.CONTENT_LIGHT_LEVEL)
    if light is not None:
        found.append("max-cll={},{}".format(*struct.unpack_from("=2I", bytes(light))))
    return found
