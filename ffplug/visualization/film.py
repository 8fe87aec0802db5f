"""A video of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ffplug.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")


def write_video(pictures: str | Path | Iterable[np.ndarray], path: str | Path, fps: float = 10.0) -> Path:
    """Write pictures as an MP4 (H.264 where this PyAV has it, else MPEG-4).

    Args:
        pictures: a folder, whose pictures are taken in natural order of their names, or H×W×3 uint8 RGB arrays. The
            first one sets the size (made even); others are scaled to it.
        path: the ``.mp4`` file; its folder is made.
        fps: pictures per second.

    Returns:
        The path of the file.

    Raises:
        DataError: there is no picture, or one cannot be read.
    """
    import av

    frames = _read_folder(Path(pictures)) if isinstance(pictures, str | Path) else iter(pictures)
    first = next(frames, None)
    if first is None:
        raise DataError(f"{pictures if isinstance(pictures, str | Path) else 'write_video'}: no pictures to film")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = (max(2, side + side % 2) for side in (first.shape[1], first.shape[0]))
    with av.open(str(path), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if codec == "mpeg4":
            stream.bit_rate = 8_000_000
        for picture in _chain(first, frames):
            if picture.shape[:2] == first.shape[:2]:
                # An odd side gets its last line once more.
                picture = np.pad(
                    picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)), "edge"
                )
            else:
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return path


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _read_folder(folder: Path) -> Iterator[np.ndarray]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of pictures")
    names = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES]
    for path in sorted(names, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)]):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"{path}: cannot be read as a picture")
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
