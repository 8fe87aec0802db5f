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
    from ffplug.apis.video import VideoWriter

    frames = _read_folder(Path(pictures)) if isinstance(pictures, str | Path) else iter(pictures)
    first = next(frames, None)
    if first is None:
        raise DataError(f"{pictures if isinstance(pictures, str | Path) else 'write_video'}: no pictures to film")
    path = Path(path)
    height, width = first.shape[:2]
    with VideoWriter(path, Fraction(fps).limit_denominator(1000)) as writer:
        for picture in _chain(first, frames):
            if picture.shape[:2] != (height, width):
                picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            writer.write(np.ascontiguousarray(picture))
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
