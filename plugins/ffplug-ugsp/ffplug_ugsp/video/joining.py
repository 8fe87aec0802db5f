"""Putting the parts together with the input's other streams, without touching a byte of any packet."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ffplug.errors import DataError
from ffplug_ugsp.video.errors import writing

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".ts": "mpegts"}
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Metadata that tell of the input's container, not of what is in it."""


def other_streams(source: Path, target: Path) -> tuple[list[int], list[str]]:
    """Which streams beside the video go into a container of the target's kind.

    Returns:
        Their indexes, and a line for each one that is left out.

    Raises:
        DataError: a sound track does not fit, or the target's suffix is none of a video.
    """
    taken, left = [], []
    with av.open(str(source)) as container:
        for stream in container.streams:
            if stream is container.streams.video[0]:
                continue
            reason = _refusal(stream, target)
            if reason is None:
                taken.append(stream.index)
            elif stream.type == "audio":
                raise DataError(f"{target}: {target.suffix} cannot hold the sound ({reason}); write to .mkv")
            else:
                left.append(f"stream {stream.index} ({stream.type}) is left out: {reason}; .mkv holds most kinds")
    return taken, left


def _refusal(stream: av.stream.Stream, target: Path) -> str | None:
    """Why a container of the target's kind does not hold a stream, or None."""
    if stream.type == "video":
        return "a further picture or video"
    name = getattr(stream.codec_context, "name", None) or stream.type
    try:
        with av.open(io.BytesIO(), "w", format=container_format(target)) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        return f"{name}: {error}"
    return None


def container_format(target: Path) -> str:
    """FFmpeg's name of a container by its suffix.

    Raises:
        DataError: it is none that takes video and other streams.
    """
    suffix = target.suffix.lower()
    found = _FORMATS.get(suffix)
    if suffix == ".avi":
        raise DataError(f"{target}: .avi keeps no times, so that sound and picture would part; write to .mkv or .mp4")
    if found is None:
        raise DataError(f"{target}: expected a name that ends in one of {', '.join(_FORMATS)}")
    return found


def join(
    parts: Sequence[Path],
    source: Path,
    target: Path,
    streams: Sequence[int],
    time: Callable[[int], int],
    time_base: Fraction,
    rotation: int,
) -> None:
    """Write the result: the packets of the parts with their final times, and those of the input's other streams.

    Args:
        parts: files of the parts, in order.
        source: the input.
        target: the file to write.
        streams: indexes of the input's other streams.
        time: gives the time of a frame by its number, from 0 to the end of the last one, in ``time_base``.
        time_base: seconds.
        rotation: degrees counter-clockwise by which players turn the video.

    Raises:
        DataError: the parts do not belong together, or the disk is full.
    """
    with (
        av.open(str(source)) as original,
        av.open(str(parts[0])) as first,
        writing(target),
        av.open(str(target), "w", format=container_format(target)) as container,
    ):
        kept = {key: value for key, value in original.metadata.items() if key.lower() not in _OF_THE_FILE}
        container.metadata.update(kept)
        video = container.add_stream_from_template(first.streams.video[0], opaque=True)
        video.time_base = time_base
        video.metadata.update(original.streams.video[0].metadata)
        if video.codec_context.name == "hevc" and container.format.name in ("mp4", "mov"):
            video.codec_context.codec_tag = "hvc1"  # the one that Apple's players take
        if rotation:
            video.set_display_rotation(rotation)
        copies = {}
        for index in streams:
            copies[index] = container.add_stream_from_template(original.streams[index])
            copies[index].metadata.update(original.streams[index].metadata)
        if original.chapters():
            container.set_chapters(original.chapters())
        sources = [_video_packets(parts, time, time_base), _other_packets(original, list(copies))]
        for _, index, packet in heapq.merge(*sources, key=lambda item: item[0]):
            packet.stream = video if index is None else copies[index]
            container.mux_one(packet)


def _video_packets(
    parts: Sequence[Path], time: Callable[[int], int], time_base: Fraction
) -> Iterator[tuple[Fraction, None, av.Packet]]:
    """The packets of all parts.

    The order of display gives a packet its frame's number and so its time. Decoding times are those of display, moved
    on by as many frames as frames are ever shown earlier than they come, so they never go backwards, also from part to
    part.
    """
    ranks = [_ranks(path) for path in parts]
    delay = max(int((np.arange(len(rank)) - rank).max()) for rank in ranks)
    first, step = time(0), time(1) - time(0)
    header = None
    begun = 0
    for path, rank in zip(parts, ranks, strict=True):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if header not in (None, stream.codec_context.extradata):
                raise DataError(
                    f"{path}: encoded in another way than the parts before; delete its folder and begin anew"
                )
            header = stream.codec_context.extradata
            packets = (packet for packet in container.demux(stream) if packet.size)
            for place, (packet, shown) in enumerate(zip(packets, rank, strict=True), begun):
                packet.time_base = time_base
                packet.pts = time(begun + int(shown))
                packet.dts = time(place - delay) if place >= delay else first - (delay - place) * step
                packet.duration = time(begun + int(shown) + 1) - packet.pts
                yield packet.dts * time_base, None, packet
        begun += len(rank)


def _ranks(path: Path) -> np.ndarray:
    """The place in the order of display of each packet of a part."""
    with av.open(str(path)) as container:
        shown = [packet.pts for packet in container.demux(container.streams.video[0]) if packet.size]
    return np.argsort(np.argsort(shown)).astype(np.int32)


def _other_packets(
    container: av.container.InputContainer, streams: Sequence[int]
) -> Iterator[tuple[Fraction, int, av.Packet]]:
    """The packets of other streams as they lie in the file."""
    if not streams:
        return
    latest = Fraction(-(2**40))
    for packet in container.demux([container.streams[index] for index in streams]):
        if packet.size and packet.dts is not None:
            # A file may be badly interleaved; merging wants growing times.
            latest = max(latest, packet.dts * packet.time_base)
            yield latest, packet.stream.index, packet
